import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { closeSync, openSync, writeSync } from "node:fs"
import type { Socket } from "node:net"
import { resolve } from "node:path"
import { Native } from "../core/Native.ts"
import { Console } from "./Console.ts"
import { makeFreeze } from "./Freeze.ts"
import { exitReport, lastWords } from "./Init.ts"
import { minimumMemoryMib } from "./Initramfs.ts"
import { commandLineFor } from "./KernelHeader.ts"
import { probeKvm } from "./KvmProbe.ts"
import { runLeashed } from "./LeashedProcess.ts"
import { requireProgram } from "./Programs.ts"
import { connect } from "./Qmp.ts"
import {
  type Acceleration,
  GuestExited,
  GuestPanicked,
  NotReady,
  type Vm,
  VmBootError,
  VmEngine,
  type VmSpec
} from "./VmEngine.ts"

export interface QemuOptions {
  /** Who executes the guest's instructions; `auto` is KVM where a probe guest shows that it works. */
  readonly accelerate?: "auto" | "kvm" | "emulation"
  /** How long the guest's CPUs may take to stop; 10 seconds. */
  readonly freezeTimeout?: Duration.DurationInput
}

const MIB = 2 ** 20
/** The memory backend's id. */
const RAM = "ram"
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

/** QEMU's descriptors. Everything that we and QEMU share is one: no path, no port, nothing left behind. */
const fd = { stderr: 2, monitor: 3, console: 4, report: 5, ram: 6, initramfs: 7 } as const

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
      const acceleration = yield* Effect.cached(
        choose(options.accelerate ?? "auto").pipe(
          Effect.provideService(Native, native)
        )
      )
      return {
        boot: Effect.fn("Qemu.boot")((spec: VmSpec) =>
          Effect.flatMap(acceleration, (chosen) =>
            boot(spec, chosen, Duration.decode(options.freezeTimeout ?? "10 seconds")))
            .pipe(Effect.provideService(Native, native))
        )
      }
    })
  )

/** `layerWith` nothing special. */
export const layer: Layer.Layer<VmEngine, never, Native> = layerWith({})

const choose = (wish: "auto" | "kvm" | "emulation"): Effect.Effect<Acceleration, never, Native> =>
  wish === "auto"
    ? Effect.map(probeKvm, (verdict) => ({
      by: verdict.kind === "hardware" ? "kvm" : "emulation",
      why: verdict.why
    }))
    : Effect.succeed({ by: wish, why: "asked for" })

const boot = Effect.fnUntraced(function*(spec: VmSpec, acceleration: Acceleration, freezeTimeout: Duration.Duration) {
  const memoryMib = spec.memoryMib ?? 512
  const cpus = spec.cpus ?? 1
  const unbootable = (why: string, mend: string) => new VmBootError({ subject: spec.kernel, why, mend })
  const cmdline = yield* commandLineFor(spec)
  const needed = minimumMemoryMib(spec.initramfs.length)
  if (!(memoryMib >= needed)) {
    return yield* unbootable(
      `${memoryMib} MiB of memory cannot hold a kernel and its initramfs`,
      `give it --memory-mib ${needed} or more`
    )
  }
  if (!(Number.isInteger(memoryMib) && Number.isInteger(cpus) && cpus >= 1)) {
    return yield* unbootable(`${cpus} CPUs and ${memoryMib} MiB are no machine`, "give whole numbers, 1 CPU or more")
  }
  const qemu = yield* requireProgram("qemu-system-x86_64", "it runs the guest", "qemu-system-x86")
  const keep = yield* keepConsole(spec)
  const vmScope = yield* Effect.scope
  const size = memoryMib * MIB
  // the descriptors close once QEMU has inherited them; mappings and process live as long as the VM
  const { child, windows } = yield* Effect.scoped(Effect.gen(function*() {
    const native = yield* Native
    const ram = yield* native.memfd("ktstr-ram", size)
    const initramfs = yield* native.memfd("ktstr-initramfs", spec.initramfs.length)
    yield* Effect.try({
      try: () => writeWhole(initramfs, spec.initramfs),
      catch: (error) => unbootable(`its initramfs: ${String(error)}`, "is the host out of memory?")
    })
    const offsets = Array.from({ length: Math.ceil(size / WINDOW) }, (_, index) => index * WINDOW)
    const windows = yield* Effect.forEach(
      offsets,
      (offset) => Scope.extend(native.mmap(ram, offset, Math.min(WINDOW, size - offset), "write"), vmScope)
    )
    const parameters = [
      ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
      ["-machine", `pc,memory-backend=${RAM}`, "-accel", acceleration.by === "kvm" ? "kvm" : EMULATION],
      ["-cpu", spec.cpuModel ?? "max", "-smp", `${cpus}`, "-m", `${memoryMib}M`],
      ["-object", `memory-backend-file,id=${RAM},mem-path=/proc/self/fd/${fd.ram},share=on,size=${memoryMib}M`],
      ["-kernel", resolve(spec.kernel), "-initrd", `/proc/self/fd/${fd.initramfs}`, "-append", cmdline],
      ["-chardev", `socket,id=monitor,fd=${fd.monitor}`, "-mon", "chardev=monitor,mode=control"],
      ["-chardev", `socket,id=console,fd=${fd.console}`, "-serial", "chardev:console"],
      ["-chardev", `socket,id=report,fd=${fd.report}`, "-serial", "chardev:report"]
    ].flat()
    const shared = ["socket", "socket", "socket", "socket", ram, initramfs] as const
    const child = yield* Scope.extend(runLeashed(qemu, parameters, ["null", "null", ...shared]), vmScope)
    return { child, windows }
  })).pipe(Effect.catchTag("SyscallError", (error) => unbootable(error.message, "is the host out of memory?")))

  const complaints = listen(child.socket(fd.stderr))
  const report = listen(child.socket(fd.report))
  const console = listen(child.socket(fd.console), keep)
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
  const timeout = Duration.decode(spec.timeout ?? "60 seconds")
  const ready = yield* Effect.forkScoped(Effect.timeoutFail(reported(report, console, ended), {
    duration: timeout,
    onTimeout: () => new NotReady({ seconds: Duration.toSeconds(timeout), lastLine: console.lastLine })
  }))
  const vm: Vm = {
    topology: { cpus, memoryMib },
    acceleration,
    pid: child.pid,
    console: console.lines,
    consoleTail: Effect.sync(() => console.tail),
    awaitLine: (pattern) => Effect.orElse(firstLine(console, pattern), () => ended),
    awaitReady: Fiber.join(ready),
    awaitExit: child.exit,
    freeze: makeFreeze(qmp, { name: RAM, size, windows, windowBytes: WINDOW }, ended, freezeTimeout)
  }
  return vm
})

/** Longest wait for the end of the script's output once its report is there: a kernel message may have torn the line. */
const LAST_WORDS_SECONDS = 5

/**
 * The exit status of the init's script, or how the guest failed to give one. The report overtakes what the serial console
 * has still to send, so wait for the console's last words too: then a frozen guest's console is complete.
 */
const reported = <E>(report: Console, console: Console, ended: Effect.Effect<never, E>) =>
  Effect.raceFirst(
    firstLine(report, exitReport).pipe(
      Effect.tap(Effect.timeoutOption(Effect.option(firstLine(console, lastWords)), `${LAST_WORDS_SECONDS} seconds`)),
      Effect.map((line) => Number(exitReport.exec(line)?.[1])),
      Effect.orElse(() => ended)
    ),
    firstLine(console, panic).pipe(
      Effect.orElse(() => Effect.never),
      Effect.flatMap((line) => new GuestPanicked({ line }))
    )
  )

/** kernel/panic.c `vpanic`, v6.12; behind the time and, where configured, the caller. */
const panic = /^(\[[^\]]*\]\s*)*Kernel panic - not syncing/

const firstLine = (console: Console, pattern: RegExp) =>
  Effect.flatten(Stream.runHead(Stream.filter(console.lines, (line) => line.search(pattern) >= 0)))

const listen = (socket: Socket, also?: (bytes: Uint8Array) => void): Console => {
  const console = new Console()
  socket.on("close", () => console.end()).on("data", (bytes: Buffer) => {
    console.push(bytes)
    also?.(bytes)
  })
  return console
}

/** Appends to `spec.consoleFile`; a full disk ends the file, not the VM, and is said when the VM ends. */
const keepConsole = (
  spec: VmSpec
): Effect.Effect<((bytes: Uint8Array) => void) | undefined, VmBootError, Scope.Scope> =>
  Effect.gen(function*() {
    const path = spec.consoleFile
    if (path === undefined) return undefined
    let trouble: unknown
    const file = yield* Effect.acquireRelease(
      Effect.try({
        try: () => openSync(path, "w"),
        catch: (error) =>
          new VmBootError({
            subject: spec.kernel,
            why: `its console cannot be kept in ${path}: ${
              error instanceof Error && "code" in error ? error.code : error
            }`,
            mend: "give --console a file that can be written"
          })
      }),
      (file) =>
        Effect.suspend(() => {
          closeSync(file)
          return trouble === undefined ? Effect.void : Effect.logWarning(`${path} is incomplete: ${String(trouble)}`)
        })
    )
    return (bytes) => {
      if (trouble !== undefined) return
      try {
        writeWhole(file, bytes)
      } catch (error) {
        trouble = error
      }
    }
  })

const writeWhole = (file: number, bytes: Uint8Array): void => {
  for (let done = 0; done < bytes.length;) done += writeSync(file, bytes, done)
}
