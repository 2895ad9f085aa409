import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { writeFileSync } from "node:fs"
import type { Socket } from "node:net"
import { resolve } from "node:path"
import { Native } from "../../core/Native.ts"
import { requireProgram } from "../../core/Programs.ts"
import { Console } from "../guest/Console.ts"
import { firstLine, keepConsole, panic, reported } from "../guest/GuestConsole.ts"
import { resizeLine } from "../guest/Init.ts"
import { minimumMemoryMib } from "../guest/Initramfs.ts"
import { type KvmVerdict, probeKvm } from "../native/KvmProbe.ts"
import { openDisks } from "../spec/Disks.ts"
import { resolveTopology } from "../spec/Topology.ts"
import { VM_DEFAULTS } from "../spec/VmDefaults.ts"
import {
  type Acceleration,
  GuestExited,
  GuestPanicked,
  NotReady,
  type Vm,
  VmBootError,
  VmEngine,
  type VmSpec
} from "../spec/VmEngine.ts"
import { runLeashed } from "./ChildProcess.ts"
import { commandLineFor } from "./KernelHeader.ts"
import { makeFreeze, makeMemory } from "./QemuFreeze.ts"
import { backendOf, qemuShowsLlcs, qemuTopology } from "./QemuTopology.ts"
import { connect } from "./Qmp.ts"

export interface QemuOptions {
  /** Who executes the guest's instructions; `auto` is KVM where a probe guest shows that it works. */
  readonly accelerate?: "auto" | "kvm" | "emulation"
  /** How long the guest's CPUs may take to stop; 10 seconds. */
  readonly freezeTimeout?: Duration.DurationInput
}

const MIB = 2 ** 20
/** One mapping of guest memory: what one ArrayBuffer of Node 20 holds with ease. */
const WINDOW = 2 ** 30
/**
 * All CPUs of an emulated guest take turns on one thread of QEMU. With a thread each, one guest in a hundred panicked in
 * its boot: a CPU ran the `int3` of a code patch that another had finished already (seen with QEMU 7.2 and Linux 6.12:
 * "Oops: int3" in a function just patched). Booting takes the same time either way.
 */
const EMULATION = "tcg,thread=single"
/** Longest wait for QEMU's monitor to greet us; it takes 20 ms. */
const GREETING_SECONDS = 30

/**
 * QEMU's descriptors. Everything that we and QEMU share is one: no path, no port, nothing left behind. `ram` is that of
 * node 0; the other nodes' follow.
 */
const fd = { stderr: 2, monitor: 3, console: 4, report: 5, initramfs: 6, ram: 7 } as const

/**
 * A `VmEngine` that is a QEMU process a VM. Guest memory is an anonymous file that we map and QEMU inherits.
 *
 * The machine is `pc` without default devices; ttyS0 is the console and ttyS1 the init's report. On this class of
 * machine, emulated, a Debian 6.12 kernel is at its init after 2.6 s; q35 and microvm are no faster.
 */
export const layerWith = (options: QemuOptions): Layer.Layer<VmEngine, never, Native> =>
  Layer.effect(
    VmEngine,
    Effect.gen(function*() {
      const native = yield* Native
      const acceleration = yield* Effect.cached(choose(options.accelerate ?? "auto"))
      return {
        boot: (spec) =>
          Effect.flatMap(acceleration, (chosen) => bootQemu(spec, chosen, options)).pipe(
            Effect.provideService(Native, native)
          )
      }
    })
  )

/** `layerWith` nothing special. */
export const layer: Layer.Layer<VmEngine, never, Native> = layerWith({})

const choose = (wish: "auto" | "kvm" | "emulation"): Effect.Effect<Acceleration> =>
  wish === "auto" ? Effect.map(probeKvm, accelerationBy) : Effect.succeed({ by: wish, why: "asked for" })

/** What QEMU takes where /dev/kvm is worth that. */
export const accelerationBy = ({ kind, why }: KvmVerdict): Acceleration => ({
  by: kind === "hardware" ? "kvm" : "emulation",
  why
})

/** Boot a kernel; fails with `HostLacks` where QEMU or setpriv is missing. */
export const bootQemu = Effect.fn("Qemu.boot")(function*(
  spec: VmSpec,
  acceleration: Acceleration,
  options: Pick<QemuOptions, "freezeTimeout"> = {}
) {
  const freezeTimeout = Duration.decode(options.freezeTimeout ?? "10 seconds")
  const unbootable = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
  const topology = yield* Either.mapLeft(resolveTopology(spec), ({ hint, why }) => unbootable(why, hint))
  const { memoryMib } = topology
  const cmdline = yield* commandLineFor(spec)
  const needed = minimumMemoryMib(spec.initramfs.length)
  if (!(memoryMib >= needed)) {
    return yield* unbootable(
      `${memoryMib} MiB of memory cannot hold a kernel and its initramfs`,
      `give it --memory-mib ${needed} or more`
    )
  }
  if (!qemuShowsLlcs(topology, acceleration.by)) {
    return yield* unbootable(
      "Linux takes 8 threads for an LLC on this host's CPU",
      "give LLCs of 8 threads, or one LLC, or let QEMU emulate"
    )
  }
  const qemu = yield* requireProgram("qemu-system-x86_64", "it runs the guest", "qemu-system-x86")
  const keep = yield* keepConsole(spec)
  const vmScope = yield* Effect.scope
  // the other descriptors close once QEMU has inherited them; memory and process live as long as the VM
  const { child, ram } = yield* Effect.scoped(Effect.gen(function*() {
    const native = yield* Native
    const initramfs = yield* native.memfd("ktstr-initramfs", spec.initramfs.length)
    yield* Effect.try({
      try: () => writeFileSync(initramfs, spec.initramfs),
      catch: (error) => unbootable(`its initramfs: ${String(error)}`, "is the host out of memory?")
    })
    const ram = yield* Effect.forEach(topology.nodes, ({ mib }, node) =>
      Effect.gen(function*() {
        const size = mib * MIB
        const file = yield* Scope.extend(native.memfd("ktstr-ram", size), vmScope)
        const offsets = Array.from({ length: Math.ceil(size / WINDOW) }, (_, index) => index * WINDOW)
        const windows = yield* Effect.forEach(
          offsets,
          (offset) => Scope.extend(native.mmap(file, offset, Math.min(WINDOW, size - offset), "write"), vmScope)
        )
        const nextWritten = (at: number) => native.nextData(file, at)
        return { name: backendOf(node), size, windows, windowBytes: WINDOW, file, nextWritten }
      }))
    const disks = yield* openDisks(spec)
    const firstDisk = fd.ram + ram.length
    const parameters = [
      ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
      ["-accel", acceleration.by === "kvm" ? "kvm" : EMULATION],
      qemuTopology(topology, spec.cpuModel ?? "max", acceleration.by, fd.ram),
      ["-kernel", resolve(spec.kernel), "-initrd", `/proc/self/fd/${fd.initramfs}`, "-append", cmdline],
      ["-chardev", `socket,id=monitor,fd=${fd.monitor}`, "-mon", "chardev=monitor,mode=control"],
      ["-chardev", `socket,id=console,fd=${fd.console}`, "-serial", "chardev:console"],
      ["-chardev", `socket,id=report,fd=${fd.report}`, "-serial", "chardev:report"],
      ...disks.map(({ readOnly }, index) => [
        "-drive",
        `if=none,id=disk${index},format=raw,file=/proc/self/fd/${firstDisk + index},readonly=${
          readOnly ? "on" : "off"
        }`,
        "-device",
        `virtio-blk-pci,drive=disk${index}`
      ])
    ].flat()
    const files = [initramfs, ...ram.map(({ file }) => file), ...disks.map((disk) => disk.fd)]
    const shared = ["socket", "socket", "socket", "socket", ...files] as const
    const child = yield* Scope.extend(runLeashed(qemu, parameters, ["null", "null", ...shared]), vmScope)
    return { child, ram }
  })).pipe(Effect.catchTag("SyscallError", (error) => unbootable(error.message, "is the host out of memory?")))

  const complaints = listen(child.socket(fd.stderr))
  const report = listen(child.socket(fd.report))
  const console = listen(child.socket(fd.console), keep)
  // a reader that stands still must not keep us from seeing QEMU's end
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      console.end()
      child.socket(fd.console).resume()
    })
  )
  const qmp = connect(child.socket(fd.monitor))
  yield* Effect.raceFirst(
    Effect.orElse(qmp.ready, () => Effect.never),
    Effect.flatMap(child.exit, ({ signal, status }) =>
      unbootable(
        complaints.lastLine?.replace(/^\S*qemu-system-x86_64: /, "") ??
          `QEMU ended with ${signal ?? status ?? "no process made"}`,
        "is the setting one that QEMU knows?"
      ))
  ).pipe(Effect.timeoutFail({
    duration: Duration.seconds(GREETING_SECONDS),
    onTimeout: () => unbootable(`QEMU did not answer within ${GREETING_SECONDS} s`, "is the host overloaded? try again")
  }))

  const ended = Effect.flatMap(child.exit, ({ signal, status }): Effect.Effect<never, GuestExited | GuestPanicked> => {
    const line = console.tail.find((line) => panic.test(line))
    return line === undefined
      ? new GuestExited({ signal, status, lastLine: console.lastLine, detail: complaints.lastLine })
      : new GuestPanicked({ line })
  })
  const timeout = Duration.decode(spec.timeout ?? Duration.seconds(VM_DEFAULTS.timeoutSeconds))
  const ready = yield* Effect.forkScoped(Effect.timeoutFail(reported(report, console, ended), {
    duration: timeout,
    onTimeout: () => new NotReady({ seconds: Duration.toSeconds(timeout), lastLine: console.lastLine })
  }))
  const vm: Vm = {
    engine: "qemu",
    topology,
    acceleration,
    pid: child.pid,
    console: console.lines,
    consoleBytes: console.bytes,
    type: (bytes) => Effect.raceFirst(send(child.socket(fd.console), bytes), ended),
    resize: (size) => Effect.raceFirst(send(child.socket(fd.report), resizeLine(size)), ended),
    consoleTail: Effect.sync(() => console.tail),
    awaitLine: (pattern) => Effect.orElse(firstLine(console, pattern), () => ended),
    awaitReady: Fiber.join(ready),
    awaitExit: child.exit,
    ended,
    memory: makeMemory(qmp, ram, ended),
    freeze: makeFreeze(qmp, ram, ended, freezeTimeout)
  }
  return vm
})

const listen = (socket: Socket, also?: (bytes: Uint8Array) => void): Console => {
  const console = new Console()
  console.onRoom = () => {
    if (socket.isPaused() && !console.full) socket.resume()
  }
  socket.on("close", () => console.end()).on("data", (bytes: Buffer) => {
    also?.(bytes)
    console.push(bytes)
    if (console.full) socket.pause()
  })
  return console
}

/** Sends bytes to a serial port; waits while the guest does not read. */
const send = (socket: Socket, bytes: Uint8Array): Effect.Effect<void> =>
  Effect.async((resume) => {
    // a socket that has ended does not answer: the VM's end does
    socket.write(bytes, (error) => error ? undefined : resume(Effect.void))
  })
