import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Socket } from "node:net"
import type { HostLacks } from "../../core/Errors.ts"
import { Native } from "../../core/Native.ts"
import { bootedVm, failAtEnd, type GuestEnd } from "../guest/BootedVm.ts"
import { commandLine } from "../guest/CommandLine.ts"
import { Console } from "../guest/Console.ts"
import { keepConsole } from "../guest/GuestConsole.ts"
import { PORTS } from "../guest/Init.ts"
import { minimumMemoryMib } from "../guest/Initramfs.ts"
import { notWatched } from "../guest/WriteWatches.ts"
import { type KvmStatus, probeKvm } from "../probe/KvmProbe.ts"
import { checkSpec } from "../spec/Limits.ts"
import { readKernelImage } from "../spec/LinuxImage.ts"
import { inRealTime } from "../spec/RealTime.ts"
import { type Acceleration, type Vm, VmBootError, VmEngine, type VmSpec } from "../spec/VmEngine.ts"
import type { ChildProcess } from "./ChildProcess.ts"
import { type Emulation, isSlicersWarning, type QemuProgram } from "./Emulation.ts"
import { makeFreezer, makeLayOut, makeMemory } from "./QemuFreeze.ts"
import { startQemu } from "./QemuProcess.ts"
import { fd } from "./QemuProcess.ts"
import { isPlain, qemuShowsLlcs } from "./QemuTopology.ts"
import { makeDebugger } from "./QemuWatch.ts"
import { connect, endedOr, type Qmp } from "./Qmp.ts"

/**
 * Options of the QEMU engine.
 *
 * @since 0.1.0
 * @category models
 */
export interface QemuOptions {
  /** Who executes the guest's instructions; `auto` is KVM where a probe guest shows that it works. */
  readonly accelerate?: "auto" | "kvm" | "emulation"
  /** How emulated CPUs share the host's; `turns`. */
  readonly emulation?: Emulation
  /** Which QEMU; the one on the PATH. */
  readonly program?: QemuProgram
  /** How long the guest's CPUs may take to stop; 10 seconds. */
  readonly freezeTimeout?: Duration.DurationInput
}

/** How long a QEMU that has closed its connections may take to be seen as ended. */
const QEMU_LEAVES = "1 second"

/** Longest wait for QEMU's monitor to greet us; it takes 20 ms, but 2 s of a CPU where it places an arm64 kernel. */
const GREETING_SECONDS = { "x86-64": 30, arm64: 120 } as const

/**
 * A `VmEngine` that is a QEMU process a VM. Guest memory is an anonymous file that we map and QEMU inherits.
 *
 * The machine is `pc` without default devices; ttyS0 is the console and ttyS1 the init's report. On this class of
 * machine, emulated, a Debian 6.12 kernel that unpacks itself is at its init after 2.6 s; q35 and microvm are not faster.
 * An arm64 kernel (its `Image`) gets the machine `virt`, always emulated: its console is a PL011, its report on PCI.
 *
 * @since 0.1.0
 * @category layers
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

/**
 * `layerWith({})`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<VmEngine, never, Native> = layerWith({})

const choose = (requested: "auto" | "kvm" | "emulation"): Effect.Effect<Acceleration> =>
  requested === "auto" ? Effect.map(probeKvm, accelerationBy) : Effect.succeed({ by: requested, why: "asked for" })

/**
 * The acceleration that QEMU uses, given the state of /dev/kvm.
 *
 * @since 0.1.0
 * @category utilities
 */
export const accelerationBy = ({ kind, why }: KvmStatus): Acceleration => ({
  by: kind === "hardware" ? "kvm" : "emulation",
  why
})

/**
 * Boot a kernel in a QEMU process; fails with `HostLacks` where there is no QEMU.
 *
 * @since 0.1.0
 * @category constructors
 */
export const bootQemu = (
  spec: VmSpec,
  requested: Acceleration,
  options: QemuOptions = {}
): Effect.Effect<Vm, VmBootError | HostLacks, Native | Scope.Scope> =>
  inRealTime(Effect.gen(function*() {
    const broken = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
    const checked = yield* checkSpec(spec, options, minimumMemoryMib(spec.initramfs.length))
    const { freezeTimeout, limits, topology } = checked
    const { image, kernel } = yield* chooseKernel(spec, requested)
    const isArm64 = image.kind === "arm64 Image"
    const acceleration: Acceleration = isArm64 ? { by: "emulation", why: "an arm64 guest on x86-64" } : requested
    if (image.kind === "vmlinux" && !image.pvh) {
      return yield* broken(
        "a vmlinux without a PVH entry",
        "give the compressed image that boots (boot/vmlinuz-…, arch/x86/boot/bzImage), or build with CONFIG_PVH"
      )
    }
    const cmdline = yield* commandLine(spec, image.cmdlineLimit, [], PORTS[isArm64 ? "arm64" : "x86-64"])
    if (!qemuShowsLlcs(topology, acceleration.by)) {
      return yield* broken(
        "Linux takes 8 threads for an LLC on this host's CPU",
        "give LLCs of 8 threads, or one LLC, or let QEMU emulate"
      )
    }
    if (isArm64 && !isPlain(topology)) {
      return yield* broken("arm64 guests have one NUMA node, one LLC and no threads of cores", "use cpus alone")
    }
    const keep = yield* keepConsole(spec)
    const { child, ram, shareFailed } = yield* startQemu({ ...spec, kernel }, topology, acceleration, cmdline, {
      ...options,
      isArm64
    })

    const complaints = listen(child.socket(fd.stderr))
    const report = listen(child.socket(fd.report))
    const console = listen(child.socket(fd.console), keep)
    // a reader that has stopped must not keep us from seeing QEMU's end
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        console.end()
        child.socket(fd.console).resume()
      })
    )
    const qmp = connect(child.socket(fd.monitor))
    yield* greeted(spec, child, qmp, complaints, GREETING_SECONDS[isArm64 ? "arm64" : "x86-64"])
    const layOut = yield* makeLayOut(qmp, ram)
    // without it the guest would wait for that folder without end; a server that QEMU has left alone fails too
    let shareFault: string | undefined
    yield* shareFailed.pipe(
      Effect.tap(() => Effect.sleep(QEMU_LEAVES)),
      Effect.tap((why) => Effect.sync(() => shareFault = why)),
      Effect.zipRight(child.kill),
      Effect.forkScoped
    )
    const end = Effect.map(child.exit, (exit): GuestEnd => ({ ...exit, detail: shareFault ?? complaintOf(complaints) }))
    const ended = failAtEnd(end, console)
    const { resume, watchWrites } = yield* makeDebugger(qmp, child.socket(fd.debugger))
    const freezer = makeFreezer(qmp, layOut, ended, freezeTimeout, resume)
    return yield* bootedVm({
      engine: "qemu",
      topology,
      acceleration,
      pid: child.pid,
      vcpuThreads: vcpuThreads(qmp, freezeTimeout),
      console,
      report,
      send: (port, bytes) => send(child.socket(port === 0 ? fd.input : fd.report), bytes),
      end,
      exit: child.exit,
      memory: makeMemory(layOut, ended, freezeTimeout),
      freeze: freezer.freeze,
      watchWrites: isArm64
        ? (address, bytes) =>
          notWatched(address, bytes, "QEMU stops an arm64 guest before it writes", "watch an x86-64 guest")
        : watchWrites(freezer, ended),
      limits
    })
  }))

const Cpus = Schema.Array(Schema.Struct({ "cpu-index": Schema.Int, "thread-id": Schema.Int }))

/** `Vm.vcpuThreads` over a monitor that answers within `limit`. */
const vcpuThreads = (qmp: Qmp, limit: Duration.Duration): Vm["vcpuThreads"] =>
  qmp.execute("query-cpus-fast", Cpus).pipe(
    Effect.map((cpus) => cpus.toSorted((a, b) => a["cpu-index"] - b["cpu-index"]).map((cpu) => cpu["thread-id"])),
    Effect.timeoutOption(limit),
    Effect.map(Option.getOrElse(() => [])),
    Effect.orElseSucceed(() => []) // a monitor that is closed, or speaks nonsense, is told where the guest is frozen
  )

/** The file that QEMU boots: emulated, a guest takes seconds to unpack itself. */
const chooseKernel = ({ kernel, unpacked }: VmSpec, { by }: Acceleration) =>
  Effect.gen(function*() {
    const elf = by === "kvm" || unpacked === undefined ? undefined : unpacked
    const image = yield* readKernelImage(elf ?? kernel)
    return elf === undefined || image.pvh
      ? { kernel: elf ?? kernel, image }
      : { kernel, image: yield* readKernelImage(kernel) }
  })

/** Waits until QEMU's monitor speaks; fails when it says anything else than it should, or QEMU ends. */
const greeted = (
  spec: VmSpec,
  child: ChildProcess,
  qmp: Qmp,
  complaints: Console,
  seconds: number
): Effect.Effect<void, VmBootError> => {
  const broken = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
  const exited = Effect.flatMap(child.exit, ({ signal, status }) =>
    broken(
      complaintOf(complaints)?.replace(/^\S*qemu-system-\w+: /, "") ?? `QEMU ended with ${signal ?? status}`,
      "does QEMU know this setting?"
    ))
  const refused = (error: { readonly message: string }) =>
    endedOr(exited, broken(error.message, "is the QEMU on the PATH 7.2 or newer?"))
  return Effect.raceFirst(Effect.catchAll(qmp.ready, refused), exited).pipe(Effect.timeoutFail({
    duration: `${seconds} seconds`,
    onTimeout: () => broken(`QEMU did not answer within ${seconds} s`, "is the host overloaded? try again")
  }))
}

/** QEMU's last message. */
const complaintOf = ({ tail }: Console): string | undefined =>
  tail.findLast((line) => line.trim() !== "" && !isSlicersWarning(line))?.trim()

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
