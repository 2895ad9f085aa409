import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { HostLacks } from "../../core/Errors.ts"
import { Console } from "../Console.ts"
import { firstLine, keepConsole, panic, reported } from "../GuestConsole.ts"
import { minimumMemoryMib } from "../Initramfs.ts"
import { GuestExited, GuestPanicked, NotReady, type Vm, VmBootError, VmEngine, type VmSpec } from "../VmEngine.ts"
import { cpuidOf, setCpuid, supportedCpuid } from "./Cpuid.ts"
import { loadKvmNative } from "./Koffi.ts"
import { type KvmError, kvmSync } from "./KvmError.ts"
import type { KvmNative } from "./KvmNative.ts"
import { checkExtension, createKvmVm, type KvmVm } from "./KvmVm.ts"
import { setLapicPins } from "./Lapic.ts"
import { type LinuxEntry, loadLinux } from "./LinuxBoot.ts"
import { type LinuxImage, readLinuxImage } from "./LinuxImage.ts"
import { enterLongMode } from "./LongMode.ts"
import { startMachine } from "./Machine.ts"
import { setFpu, setMsrs } from "./Registers.ts"
import type { VmDied } from "./VmDied.ts"

export interface KvmOptions {
  /** How long the guest's CPUs may take to stop; 10 seconds. */
  readonly freezeTimeout?: Duration.DurationInput
}

/** A VM of this engine: one can type at its console. */
export interface KvmVmHandle extends Vm {
  /** Type at ttyS0; waits while the guest does not read. */
  readonly type: (bytes: Uint8Array) => Effect.Effect<void, GuestExited | GuestPanicked | VmDied>
}

const MIB = 2 ** 20
/** APIC ids are 8 bits and 255 is everybody. */
const MOST_CPUS = 254
/** How often typing looks for room, in ms. */
const TYPE_MS = 10

/**
 * Words before the user's on every command line. `panic=-1`: a panic resets, which ends the VM, at once. As the QEMU
 * engine's, so that the same kernel boots the same way.
 */
const words = "console=ttyS0 panic=-1 no_timer_check cryptomgr.notests"

/**
 * A `VmEngine` that is this process: memory, devices and interrupt controllers of a PC without PCI, a thread a CPU.
 * ttyS0 is the console and ttyS1 the init's report. It boots bzImages and ELF vmlinux files.
 */
export const layerWith = (options: KvmOptions): Layer.Layer<VmEngine> =>
  Layer.succeed(VmEngine, { boot: (spec) => bootKvm(spec, options) })

/** `layerWith` nothing special. */
export const layer: Layer.Layer<VmEngine> = layerWith({})

/** Boot a kernel; fails with `HostLacks` where /dev/kvm is missing or too old. */
export const bootKvm = Effect.fn("Kvm.boot")(function*(spec: VmSpec, options: KvmOptions) {
  const memoryMib = spec.memoryMib ?? 512
  const cpus = spec.cpus ?? 1
  const broken = (why: string, mend: string) => new VmBootError({ subject: spec.kernel, why, mend })
  const image = yield* readImage(spec)
  const cmdline = yield* commandLine(spec, image)
  const needed = minimumMemoryMib(spec.initramfs.length)
  if (!(memoryMib >= needed)) {
    const why = `${memoryMib} MiB of memory cannot hold a kernel and its initramfs`
    return yield* broken(why, `give it --memory-mib ${needed} or more`)
  }
  if (!(Number.isInteger(memoryMib) && Number.isInteger(cpus) && cpus >= 1 && cpus <= MOST_CPUS)) {
    const mend = `give whole numbers, 1 to ${MOST_CPUS} CPUs`
    return yield* broken(`${cpus} CPUs and ${memoryMib} MiB are no machine`, mend)
  }
  const keep = yield* keepConsole(spec)
  const kvm = yield* prepare(spec, image, cmdline, memoryMib, cpus).pipe(
    Effect.catchTag("KvmError", (error) => broken(error.message, "ktstr doctor says what this host can do"))
  )

  const console = new Console()
  const report = new Console()
  // output stops with the VM, in whichever way; readers then see the end
  const over = Effect.sync(() => {
    console.end()
    report.end()
  })
  yield* Effect.addFinalizer(() => over)
  const machine = yield* startMachine(kvm, {
    irqchip: true,
    tripleFaultResets: /(^| )reboot=(\w+,)*t/.test(cmdline),
    freezeTimeout: Duration.decode(options.freezeTimeout ?? "10 seconds"),
    consoleTail: () => console.tail,
    onSerial: (port, bytes) => {
      if (port === 0) keep?.(bytes)
      ;(port === 0 ? console : report).push(bytes)
    }
  })
  yield* Effect.forkScoped(Effect.zipRight(Effect.exit(machine.ended), over))

  const ended = Effect.flatMap(machine.ended, ({ detail, end }): Effect.Effect<never, GuestExited | GuestPanicked> => {
    const line = console.tail.find((line) => panic.test(line))
    return line === undefined
      ? new GuestExited({
        status: 0,
        lastLine: console.lastLine,
        detail: end === "reset" ? `reset ${detail}` : `switched off ${detail}`
      })
      : new GuestPanicked({ line })
  })
  const timeout = Duration.decode(spec.timeout ?? "60 seconds")
  const ready = yield* Effect.forkScoped(
    Effect.timeoutFail(reported(report, console, ended), {
      duration: timeout,
      onTimeout: () => new NotReady({ seconds: Duration.toSeconds(timeout), lastLine: console.lastLine })
    })
  )
  const type = (bytes: Uint8Array): Effect.Effect<void, GuestExited | GuestPanicked | VmDied> =>
    Effect.flatMap(
      machine.receive(0, bytes),
      (done) => done === bytes.length ? Effect.void : Effect.zipRight(Effect.sleep(TYPE_MS), type(bytes.subarray(done)))
    )
  const vm: KvmVmHandle = {
    topology: { cpus, memoryMib },
    acceleration: { by: "kvm", why: "this engine is KVM" },
    pid: process.pid,
    console: console.lines,
    consoleTail: Effect.sync(() => console.tail),
    awaitLine: (pattern) => Effect.orElse(firstLine(console, pattern), () => ended),
    awaitReady: Fiber.join(ready),
    awaitExit: Effect.match(machine.ended, {
      onSuccess: () => ({ status: 0, signal: undefined }),
      onFailure: () => ({ status: 1, signal: undefined })
    }),
    freeze: machine.freeze.pipe(
      Effect.map((frozen) => ({ ...frozen, memory: kvm.memory })),
      Effect.catchTag("MachineStopped", () => ended)
    ),
    type: (bytes) => Effect.raceFirst(type(bytes), ended)
  }
  return vm
}) satisfies (
  spec: VmSpec,
  options: KvmOptions
) => Effect.Effect<KvmVmHandle, VmBootError | HostLacks, Scope.Scope>

const readImage = (spec: VmSpec): Effect.Effect<LinuxImage, VmBootError> =>
  Effect.suspend(() => {
    const broken = (why: string) =>
      new VmBootError({ subject: spec.kernel, why, mend: "give the path of a kernel image (bzImage or vmlinux)" })
    try {
      return Effect.mapError(readLinuxImage(spec.kernel), (error) => broken(error.message))
    } catch (error) {
      return broken(error instanceof Error ? error.message : String(error))
    }
  })

const commandLine = (spec: VmSpec, image: LinuxImage): Effect.Effect<string, VmBootError> => {
  const cmdline = [words, spec.cmdline?.trim() ?? ""].filter((part) => part !== "").join(" ")
  const broken = (why: string, mend: string) => new VmBootError({ subject: spec.kernel, why, mend })
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
  memoryMib: number,
  cpus: number
): Effect.Effect<KvmVm, KvmError | HostLacks | VmBootError, Scope.Scope> =>
  Effect.gen(function*() {
    const native = loadKvmNative()
    const kvm = yield* createKvmVm(native, { memoryBytes: memoryMib * MIB, cpus, irqchip: true })
    const { initramfs, kernel } = spec
    const entry = yield* loadLinux(kvm.memory, { kernel, image, initramfs, cmdline, cpus })
    yield* kvmSync(() => setUpCpus(native, kvm, entry))
    return kvm
  })

const setUpCpus = (native: KvmNative, kvm: KvmVm, entry: LinuxEntry): void => {
  const supported = supportedCpuid(native, kvm.kvm)
  const tscDeadline = checkExtension(native, kvm.kvm, "KVM_CAP_TSC_DEADLINE_TIMER") > 0
  kvm.vcpus.forEach((vcpu, id) => {
    setCpuid(native, vcpu, cpuidOf(supported, id, kvm.vcpus.length, tscDeadline))
    // fast strings on; memory is write-back where the kernel says nothing else, or it takes the MTRRs for broken
    setMsrs(native, vcpu, { IA32_MISC_ENABLE: 1n, MTRRdefType: 0x806n })
    setFpu(native, vcpu)
    setLapicPins(native, vcpu)
  })
  enterLongMode(native, kvm.vcpus[0], entry.rip, entry.rsi)
}
