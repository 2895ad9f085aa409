import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { HostLacks } from "../../core/Errors.ts"
import { Console } from "../guest/Console.ts"
import { firstLine, keepConsole, panic, reported } from "../guest/GuestConsole.ts"
import { resizeLine } from "../guest/Init.ts"
import { minimumMemoryMib } from "../guest/Initramfs.ts"
import { type Disk, openDisks } from "../spec/Disks.ts"
import { apicIds, resolveTopology, showsLlcs, type Topology } from "../spec/Topology.ts"
import { VM_DEFAULTS } from "../spec/VmDefaults.ts"
import type { VmDied } from "../spec/VmDied.ts"
import {
  type ConsoleSize,
  GuestExited,
  GuestPanicked,
  NotReady,
  type Vm,
  VmBootError,
  VmEngine,
  type VmSpec
} from "../spec/VmEngine.ts"
import { loadKvmNative } from "./abi/Koffi.ts"
import { type KvmError, kvmSync } from "./abi/KvmError.ts"
import type { KvmNative } from "./abi/KvmNative.ts"
import { checkExtension, createKvmVm, type KvmVm } from "./abi/KvmVm.ts"
import { type LinuxEntry, loadLinux } from "./boot/LinuxBoot.ts"
import { type LinuxImage, readLinuxImage } from "./boot/LinuxImage.ts"
import { type CpuidEntry, cpuidOf, processorOf, setCpuid, supportedCpuid } from "./cpu/Cpuid.ts"
import { setLapicPins } from "./cpu/Lapic.ts"
import { enterLongMode } from "./cpu/LongMode.ts"
import { setFpu, setMsrs } from "./cpu/Registers.ts"
import { startMachine } from "./Machine.ts"
import { readyVcpuThreads } from "./VcpuWorker.ts"
import { makeVirtioBlock } from "./virtio/VirtioBlock.ts"
import { makeVirtioConsole, terminalSize } from "./virtio/VirtioConsole.ts"
import { MOST_DEVICES, type VirtioDevice, virtioWords } from "./virtio/VirtioDevice.ts"

export interface KvmOptions {
  /** How long the guest's CPUs may take to stop; 10 seconds. */
  readonly freezeTimeout?: Duration.DurationInput
}

/** A VM of this engine: it has a second terminal, /dev/hvc0 of kernels with CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES. */
export interface KvmVmHandle extends Vm {
  readonly terminal: {
    /** What the guest writes there, from the start (the newest 1 MiB of it), until the VM ends. */
    readonly output: Stream.Stream<Uint8Array>
    /** Type there; waits while the guest does not read. */
    readonly type: (bytes: Uint8Array) => Effect.Effect<void, GuestPanicked | GuestExited | VmDied>
    /** The guest's kernel hears at once; it sends SIGWINCH. */
    readonly resize: (size: ConsoleSize) => Effect.Effect<void>
  }
}

const MIB = 2 ** 20
/** How often typing looks for room, in ms. */
const TYPE_MS = 10

/**
 * Words before the user's on every command line. `panic=-1`: a panic resets, which ends the VM, at once. As the QEMU
 * engine's, so that the same kernel boots the same way.
 */
const words = "console=ttyS0 panic=-1 no_timer_check cryptomgr.notests"

/**
 * A `VmEngine` that is this process: memory, devices and interrupt controllers of a PC without PCI, a thread a CPU.
 * ttyS0 is the console and ttyS1 the init's report; virtio-mmio has hvc0 and the disks. It boots bzImages and ELF vmlinux files.
 */
export const layerWith = (options: KvmOptions): Layer.Layer<VmEngine> =>
  Layer.succeed(VmEngine, { boot: (spec) => bootKvm(spec, options) })

/** `layerWith` nothing special. */
export const layer: Layer.Layer<VmEngine> = layerWith({})

/** Boot a kernel; fails with `HostLacks` where /dev/kvm is missing or too old. */
export const bootKvm = Effect.fn("Kvm.boot")(function*(spec: VmSpec, options: KvmOptions) {
  const broken = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
  const topology = yield* Either.mapLeft(resolveTopology(spec), ({ hint, why }) => broken(why, hint))
  const { memoryMib } = topology
  const image = yield* readImage(spec)
  const disks = yield* openDisks(spec)
  if (1 + disks.length > MOST_DEVICES) {
    return yield* broken(`${disks.length} disks are more than this engine can attach`, `give it ${MOST_DEVICES - 1}`)
  }
  const cmdline = yield* commandLine(spec, image, 1 + disks.length)
  const needed = minimumMemoryMib(spec.initramfs.length)
  if (!(memoryMib >= needed)) {
    const why = `${memoryMib} MiB of memory cannot hold a kernel and its initramfs`
    return yield* broken(why, `give it --memory-mib ${needed} or more`)
  }
  const keep = yield* keepConsole(spec)
  yield* readyVcpuThreads(topology.cpus)
  const kvm = yield* prepare(spec, image, cmdline, topology).pipe(
    Effect.catchTag("KvmError", (error) => broken(error.message, "ktstr doctor says what this host can do"))
  )

  const console = new Console()
  const report = new Console()
  const terminal = new Console()
  // output stops with the VM, in whichever way; readers then see the end
  const over = Effect.sync(() => {
    console.end()
    report.end()
    terminal.end()
  })
  yield* Effect.addFinalizer(() => over)
  const hvc = makeVirtioConsole((bytes) => terminal.push(bytes))
  const blocks = yield* Effect.forEach(disks, block)
  const machine = yield* startMachine(kvm, {
    irqchip: true,
    virtio: [hvc, ...blocks],
    tripleFaultResets: /(^| )reboot=(\w+,)*t/.test(cmdline),
    freezeTimeout: Duration.decode(options.freezeTimeout ?? "10 seconds"),
    consoleTail: () => console.tail,
    onSerial: (port, bytes) => {
      if (port === 0) keep?.(bytes)
      ;(port === 0 ? console : report).push(bytes)
    },
    holdsSerial: (port) => port === 0 && console.full
  })
  console.onRoom = machine.drain
  yield* Effect.forkScoped(Effect.zipRight(Effect.exit(machine.ended), over))

  const ended = Effect.flatMap(machine.ended, ({ detail, end }): Effect.Effect<never, GuestExited | GuestPanicked> => {
    const line = console.tail.find((line) => panic.test(line))
    return line === undefined
      ? new GuestExited({
        status: 0,
        lastLine: console.lastLine,
        detail: end === "powerOff" ? `switched off ${detail}` : end === "reset" ? `reset ${detail}` : detail
      })
      : new GuestPanicked({ line })
  })
  const timeout = Duration.decode(spec.timeout ?? Duration.seconds(VM_DEFAULTS.timeoutSeconds))
  const ready = yield* Effect.forkScoped(
    Effect.timeoutFail(reported(report, console, ended), {
      duration: timeout,
      onTimeout: () => new NotReady({ seconds: Duration.toSeconds(timeout), lastLine: console.lastLine })
    })
  )
  const sendBy = (receive: (bytes: Uint8Array) => Effect.Effect<number>) => {
    const send = (bytes: Uint8Array): Effect.Effect<void> =>
      Effect.flatMap(
        receive(bytes),
        (done) =>
          done === bytes.length ? Effect.void : Effect.zipRight(Effect.sleep(TYPE_MS), send(bytes.subarray(done)))
      )
    return (bytes: Uint8Array) => Effect.raceFirst(send(bytes), ended)
  }
  const send = (port: number) => sendBy((bytes) => machine.receive(port, bytes))
  const vm: KvmVmHandle = {
    engine: "kvm",
    topology,
    acceleration: { by: "kvm", why: "this engine is KVM" },
    pid: process.pid,
    console: console.lines,
    consoleBytes: console.bytes,
    type: send(0),
    resize: (size) => send(1)(resizeLine(size)),
    terminal: {
      output: terminal.bytes,
      type: sendBy((bytes) => Effect.zipLeft(Effect.sync(() => hvc.receive(bytes)), machine.ring(HVC))),
      resize: ({ columns, rows }) => machine.configure(HVC, terminalSize(columns, rows))
    },
    consoleTail: Effect.sync(() => console.tail),
    awaitLine: (pattern) => Effect.orElse(firstLine(console, pattern), () => ended),
    awaitReady: Fiber.join(ready),
    awaitExit: Effect.match(machine.ended, {
      // who closes its scope kills it, as a process is
      onSuccess: ({ end }) =>
        end === "closed" ? { status: undefined, signal: "SIGKILL" } : { status: 0, signal: undefined },
      onFailure: () => ({ status: 1, signal: undefined })
    }),
    ended,
    memory: Effect.succeed(kvm.memory),
    freeze: machine.freeze.pipe(
      Effect.map((frozen) => ({ ...frozen, memory: kvm.memory })),
      Effect.catchTag("MachineStopped", () => ended)
    )
  }
  return vm
}) satisfies (
  spec: VmSpec,
  options: KvmOptions
) => Effect.Effect<KvmVmHandle, VmBootError | HostLacks, Scope.Scope>

/** The terminal's number among the virtio devices; the disks follow. */
const HVC = 0

/** A disk; what went wrong with its file is said when the VM ends. */
const block = (disk: Disk, index: number): Effect.Effect<VirtioDevice, never, Scope.Scope> => {
  let trouble: Error | undefined
  const device = makeVirtioBlock(disk, `ktstr-disk${index}`, (error) => trouble ??= error)
  return Effect.as(
    Effect.addFinalizer(() =>
      trouble === undefined
        ? Effect.void
        : Effect.logWarning(`the guest got an I/O error from its disk ${disk.path}: ${trouble.message}`)
    ),
    device
  )
}

const readImage = (spec: VmSpec): Effect.Effect<LinuxImage, VmBootError> =>
  Effect.suspend(() => {
    const broken = (why: string) =>
      new VmBootError({ subject: spec.kernel, why, hint: "give the path of a kernel image (bzImage or vmlinux)" })
    try {
      return Effect.mapError(readLinuxImage(spec.kernel), (error) => broken(error.message))
    } catch (error) {
      return broken(error instanceof Error ? error.message : String(error))
    }
  })

const commandLine = (spec: VmSpec, image: LinuxImage, devices: number): Effect.Effect<string, VmBootError> => {
  const cmdline = [words, ...virtioWords(devices), spec.cmdline?.trim() ?? ""].filter((part) => part !== "").join(" ")
  const broken = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
  const length = Buffer.byteLength(cmdline)
  return length > image.cmdlineLimit
    ? broken(`its command line takes ${image.cmdlineLimit} bytes, not ${length}`, "shorten --cmdline")
    : /[\n\0]/.test(cmdline)
    ? broken("a command line is one line", "take the line break out of --cmdline")
    : Effect.succeed(cmdline)
}

/** A VM with the kernel loaded and its CPUs set up: the first to enter the kernel, the others to wait for it. */
const prepare = (
  spec: VmSpec,
  image: LinuxImage,
  cmdline: string,
  topology: Topology
): Effect.Effect<KvmVm, KvmError | HostLacks | VmBootError, Scope.Scope> =>
  Effect.gen(function*() {
    const native = loadKvmNative()
    const kvm = yield* createKvmVm(native, {
      memoryBytes: topology.memoryMib * MIB,
      apicIds: apicIds(topology),
      irqchip: true
    })
    const supported = yield* kvmSync(() => supportedCpuid(native, kvm.kvm))
    if (!showsLlcs(topology, processorOf(supported))) {
      return yield* new VmBootError({
        subject: spec.kernel,
        why: "Linux takes 8 threads for an LLC on this host's CPU",
        hint: "give LLCs of 8 threads, or one LLC, or use the QEMU engine (--engine qemu)"
      })
    }
    const { initramfs, kernel } = spec
    const entry = yield* loadLinux(kvm.memory, { kernel, image, initramfs, cmdline, topology })
    yield* kvmSync(() => setUpCpus(native, kvm, entry, supported, topology))
    return kvm
  })

const setUpCpus = (
  native: KvmNative,
  kvm: KvmVm,
  entry: LinuxEntry,
  supported: ReadonlyArray<CpuidEntry>,
  topology: Topology
): void => {
  const tscDeadline = checkExtension(native, kvm.kvm, "KVM_CAP_TSC_DEADLINE_TIMER") > 0
  kvm.vcpus.forEach((vcpu, cpu) => {
    setCpuid(native, vcpu, cpuidOf(supported, topology, cpu, tscDeadline))
    // fast strings on; memory is write-back where the kernel says nothing else, or it takes the MTRRs for broken
    setMsrs(native, vcpu, { IA32_MISC_ENABLE: 1n, MTRRdefType: 0x806n })
    setFpu(native, vcpu)
    setLapicPins(native, vcpu)
  })
  enterLongMode(native, kvm.vcpus[0], entry.rip, entry.rsi)
}
