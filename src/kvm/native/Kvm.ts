import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { HostLacks } from "../../core/Errors.ts"
import { bootedVm, failAtEnd, type GuestEnd } from "../guest/BootedVm.ts"
import { commandLine } from "../guest/CommandLine.ts"
import { Console } from "../guest/Console.ts"
import { keepConsole } from "../guest/GuestConsole.ts"
import { minimumMemoryMib } from "../guest/Initramfs.ts"
import { type Disk, openDisks } from "../spec/Disks.ts"
import { checkSpec } from "../spec/Limits.ts"
import { type LinuxImage, readKernelImage } from "../spec/LinuxImage.ts"
import { inRealTime } from "../spec/RealTime.ts"
import { apicIds, showsLlcs, type Topology } from "../spec/Topology.ts"
import {
  type ConsoleSize,
  type Vm,
  VmBootError,
  type VmEnded,
  VmEngine,
  type VmExit,
  type VmSpec
} from "../spec/VmEngine.ts"
import { loadKvmNative } from "./abi/Koffi.ts"
import { type KvmError, kvmSync } from "./abi/KvmError.ts"
import type { KvmNative } from "./abi/KvmNative.ts"
import { checkExtension, createKvmVm, type KvmVm } from "./abi/KvmVm.ts"
import { type LinuxEntry, loadLinux } from "./boot/LinuxBoot.ts"
import { type CpuidEntry, cpuidOf, processorOf, setCpuid, supportedCpuid } from "./cpu/Cpuid.ts"
import { setLapicPins } from "./cpu/Lapic.ts"
import { enterLongMode } from "./cpu/LongMode.ts"
import { setFpu, setMsrs } from "./cpu/Registers.ts"
import { type Machine, startMachine } from "./Machine.ts"
import type { MachineEnd } from "./MachineEnding.ts"
import { readyVcpuThreads } from "./VcpuWorker.ts"
import { makeVirtioBlock } from "./virtio/VirtioBlock.ts"
import { makeVirtioConsole, terminalSize } from "./virtio/VirtioConsole.ts"
import { MOST_DEVICES, type VirtioDevice, virtioWords } from "./virtio/VirtioDevice.ts"

/**
 * Options of the native engine.
 *
 * @since 0.1.0
 * @category models
 */
export interface KvmOptions {
  /** How long the guest's CPUs may take to stop; 10 seconds. */
  readonly freezeTimeout?: Duration.DurationInput
}

/**
 * A VM of this engine: it has a second terminal, /dev/hvc0 of kernels with CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES.
 *
 * @since 0.1.0
 * @category models
 */
export interface KvmVmHandle extends Vm {
  readonly terminal: {
    /** The guest's output there, from the start (its newest 1 MiB), until the VM ends. */
    readonly output: Stream.Stream<Uint8Array>
    /** Type there; waits while the guest does not read. */
    readonly type: (bytes: Uint8Array) => Effect.Effect<void, VmEnded>
    /** The guest's kernel is told at once; it sends SIGWINCH. */
    readonly resize: (size: ConsoleSize) => Effect.Effect<void>
  }
}

const MIB = 2 ** 20
/** How often typing looks for room, in ms. */
const TYPE_MS = 10

/**
 * A `VmEngine` that is this process: memory, devices and interrupt controllers of a PC without PCI, a thread a CPU.
 * ttyS0 is the console and ttyS1 the init's report; virtio-mmio has hvc0 and the disks. It boots bzImages and ELF vmlinux files.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerWith = (options: KvmOptions): Layer.Layer<VmEngine> =>
  Layer.succeed(VmEngine, { boot: (spec) => bootKvm(spec, options) })

/**
 * `layerWith({})`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<VmEngine> = layerWith({})

/**
 * Boot a kernel; fails with `HostLacks` where /dev/kvm is missing or too old.
 *
 * @since 0.1.0
 * @category constructors
 */
export const bootKvm = (
  spec: VmSpec,
  options: KvmOptions
): Effect.Effect<KvmVmHandle, VmBootError | HostLacks, Scope.Scope> =>
  inRealTime(Effect.gen(function*() {
    const broken = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
    const checked = yield* checkSpec(spec, options, minimumMemoryMib(spec.initramfs.length))
    const { freezeTimeout, limits, topology } = checked
    const image = yield* readKernelImage(spec.kernel)
    if (image.kind === "arm64 Image") {
      return yield* broken(
        "this engine runs x86-64 kernels, and this is an arm64 kernel",
        "use the engine auto or qemu"
      )
    }
    if ((spec.shares ?? []).length > 0) {
      return yield* broken(
        "this engine cannot share folders with its guest",
        "use the engine auto or qemu, or includes"
      )
    }
    const disks = yield* openDisks(spec)
    if (1 + disks.length > MOST_DEVICES) {
      return yield* broken(`${disks.length} disks are more than this engine can attach`, `give it ${MOST_DEVICES - 1}`)
    }
    const cmdline = yield* commandLine(spec, image.cmdlineLimit, virtioWords(1 + disks.length))
    const keep = yield* keepConsole(spec)
    yield* readyVcpuThreads(topology.cpus)
    const kvm = yield* prepare(spec, image, cmdline, topology).pipe(
      Effect.catchTag("KvmError", (error) => broken(error.message, "run `ktstr doctor` to see what this host can do"))
    )

    const consoles = { console: new Console(), report: new Console(), terminal: new Console() }
    const { console, report, terminal } = consoles
    // output stops with the VM, in whichever way; readers then see the end
    const over = Effect.sync(() => Object.values(consoles).forEach((each) => each.end()))
    yield* Effect.addFinalizer(() => over)
    const hvc = makeVirtioConsole((bytes) => terminal.push(bytes))
    const blocks = yield* Effect.forEach(disks, block)
    const machine = yield* startMachine(kvm, {
      irqchip: true,
      virtio: [hvc, ...blocks],
      tripleFaultResets: /(^| )reboot=(\w+,)*t/.test(cmdline),
      freezeTimeout,
      consoleTail: () => console.tail,
      onSerial: (port, bytes) => {
        if (port === 0) keep?.(bytes)
        ;(port === 0 ? console : report).push(bytes)
      },
      holdsSerial: (port) => port === 0 && console.full
    })
    console.onRoom = machine.drain
    yield* Effect.forkScoped(Effect.zipRight(Effect.exit(machine.ended), over))

    const end = Effect.map(machine.ended, endOf)
    const ended = failAtEnd(end, console)
    const freeze = machine.freeze.pipe(
      Effect.map((frozen) => ({
        ...frozen,
        memory: kvm.memory,
        registers: Effect.succeed(frozen.vcpus.map(({ registers }) => registers))
      })),
      Effect.catchTag("MachineStopped", () => ended)
    )
    const vm = yield* bootedVm({
      engine: "kvm",
      topology,
      acceleration: { by: "kvm", why: "this engine is KVM" },
      pid: process.pid,
      vcpuThreads: machine.threads,
      console,
      report,
      send: (port, bytes) => send((rest) => machine.receive(port, rest), bytes),
      end,
      exit: exitOf(machine),
      memory: Effect.succeed(kvm.memory),
      freeze,
      watchWrites: machine.watchWrites(freeze, ended),
      limits
    })
    const typed = (bytes: Uint8Array) => Effect.zipLeft(Effect.sync(() => hvc.receive(bytes)), machine.ring(HVC))
    return {
      ...vm,
      terminal: {
        output: terminal.bytes,
        type: (bytes) => inRealTime(Effect.raceFirst(send(typed, bytes), ended)),
        resize: ({ columns, rows }) => machine.configure(HVC, terminalSize(columns, rows))
      }
    }
  }))

const endOf = ({ detail, end }: MachineEnd): GuestEnd => ({
  status: 0,
  signal: undefined,
  detail: end === "powerOff" ? `switched off ${detail}` : end === "reset" ? `reset ${detail}` : detail
})

/** The end of the "process": who closes a VM's scope kills it. */
const exitOf = (machine: Machine): Effect.Effect<VmExit> =>
  Effect.match(machine.ended, {
    onSuccess: ({ end }) =>
      end === "closed" ? { status: undefined, signal: "SIGKILL" } : { status: 0, signal: undefined },
    onFailure: () => ({ status: 1, signal: undefined })
  })

/** Hand over all bytes, as there is room for them. */
const send = (receive: (bytes: Uint8Array) => Effect.Effect<number>, bytes: Uint8Array): Effect.Effect<void> =>
  Effect.flatMap(
    receive(bytes),
    (done) =>
      done === bytes.length ? Effect.void : Effect.zipRight(Effect.sleep(TYPE_MS), send(receive, bytes.subarray(done)))
  )

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
        hint: "give LLCs of 8 threads, or one LLC, or use the QEMU engine"
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
