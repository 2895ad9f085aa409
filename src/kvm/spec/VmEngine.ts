import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { HostLacks } from "../../core/Errors.ts"
import type { FormatError } from "../../core/FormatError.ts"
import type { GuestMemory } from "../../memory/GuestMemory.ts"
import type { Share } from "./Share.ts"
import type { Topology, TopologySpec } from "./Topology.ts"
import type { Arm64Registers, CpuRegisters, VcpuRegisters } from "./VcpuRegisters.ts"
import type { VmDied } from "./VmDied.ts"

/**
 * The settings of a VM. Each one that is left out has the default given beside it.
 *
 * @since 0.1.0
 * @category models
 */
export interface VmSpec {
  /** Path of a bzImage or an ELF vmlinux; QEMU enters only a vmlinux that was built with CONFIG_PVH. */
  readonly kernel: string
  /**
   * Path of the ELF vmlinux inside `kernel`. Where the guest's instructions are emulated, QEMU boots it in place of `kernel` if
   * it has a PVH entry: the guest need not unpack itself, and it has no KASLR.
   */
  readonly unpacked?: string | undefined
  /** A cpio archive, packed or not; `makeInitramfs` makes one whose init reports to `awaitReady`. */
  readonly initramfs: Uint8Array
  /** RAM in MiB; 512. */
  readonly memoryMib?: number | undefined
  /** CPUs of the guest; 1. They share one LLC. */
  readonly cpus?: number | undefined
  /** NUMA nodes, LLCs, cores and threads, where `cpus` does not say enough. */
  readonly topology?: TopologySpec | undefined
  /** Words to add to the kernel's command line. */
  readonly cmdline?: string | undefined
  /**
   * Disk images, which a kernel with virtio's drivers built in has as /dev/vda, /dev/vdb and so on: raw files of whole
   * sectors of 512 bytes, each of one VM at a time if it is written.
   */
  readonly disks?: ReadonlyArray<{ readonly path: string; readonly readOnly?: boolean | undefined }> | undefined
  /** Folders of the host that the guest sees in /share. Asks for the QEMU engine. */
  readonly shares?: ReadonlyArray<Share> | undefined
  /** Longest time from the boot's start until the guest has reported that its script ended; 10 minutes. */
  readonly timeout?: Duration.DurationInput | undefined
  /** Longest time in which a guest that has not reported yet prints nothing; `timeout` if that is given, else 60 seconds. */
  readonly silenceTimeout?: Duration.DurationInput | undefined
  /** A file that gets every byte of the console as it arrives; what it held is lost. */
  readonly consoleFile?: string | undefined
  /** QEMU's `-cpu`; `max`. `max,-la57` has no 5-level paging. Asks for the QEMU engine: the native one passes the host's CPU on. */
  readonly cpuModel?: string | undefined
}

/**
 * Who executes the guest's instructions, and why it was chosen.
 *
 * @since 0.1.0
 * @category models
 */
export interface Acceleration {
  readonly by: "kvm" | "emulation"
  readonly why: string
}

/**
 * How a VM ended: the exit status of its process, or the signal that ended it.
 *
 * @since 0.1.0
 * @category models
 */
export interface VmExit {
  readonly status: number | undefined
  readonly signal: string | undefined
}

/**
 * A terminal's size in characters, both above 0.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConsoleSize {
  readonly rows: number
  readonly columns: number
}

/**
 * The result of a command in a guest.
 *
 * @since 0.1.0
 * @category models
 */
export interface ExecResult {
  /** Its exit status, 0 to 255; 128 and the signal's number where a signal ended it. */
  readonly status: number
  /** Its output, stdout and stderr in the order written, as UTF-8. */
  readonly output: string
  /** Whether it wrote more than `outputBytes`. */
  readonly truncated: boolean
}

/**
 * Options of `vm.exec`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ExecOptions {
  /** Longest time until its status and output are there; 60 seconds. The guest is not told when it is over. */
  readonly timeout?: Duration.DurationInput | undefined
  /** Most bytes of output to take, up to 16 MiB; 1 MiB. */
  readonly outputBytes?: number | undefined
}

/**
 * Failures of whatever is asked of a VM that has ended.
 *
 * @since 0.1.0
 * @category models
 */
export type VmEnded = GuestPanicked | GuestExited | VmDied

/**
 * A running guest; its scope ends it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Vm {
  /** The engine that runs it: a QEMU process, or this process itself on /dev/kvm. */
  readonly engine: "qemu" | "kvm"
  readonly topology: Topology
  readonly acceleration: Acceleration
  /** The host's process that is the VM. */
  readonly pid: number
  /**
   * The host's threads that are its CPUs, by number, as the kernel's ids; CPUs that take turns in one thread share it. None:
   * QEMU does not say.
   */
  readonly vcpuThreads: Effect.Effect<ReadonlyArray<number>>
  /** The console's lines from the start (the newest 1 MiB of them) until the VM ends, for any number of readers. */
  readonly console: Stream.Stream<string>
  /**
   * The same as bytes, as they come, for a terminal: from the start, or the newest 1 MiB of it. While this is run, a
   * guest that writes faster than it is read waits, so that nothing is lost.
   */
  readonly consoleBytes: Stream.Stream<Uint8Array>
  /** Type at the console; waits while the guest does not read. */
  readonly type: (bytes: Uint8Array) => Effect.Effect<void, VmEnded>
  /** Tell the guest how large the console's terminal is now; the init of a `shell` initramfs acts on it. */
  readonly resize: (size: ConsoleSize) => Effect.Effect<void, VmEnded>
  /** The lines that `console` would start with now. */
  readonly consoleTail: Effect.Effect<ReadonlyArray<string>>
  /** The first console line, past or to come, that matches. */
  readonly awaitLine: (pattern: RegExp) => Effect.Effect<string, VmEnded>
  /** The first line, past or to come, that the init wrote on its report channel, ttyS1, and that matches. */
  readonly awaitReport: (pattern: RegExp) => Effect.Effect<string, VmEnded>
  /** The script's exit status, once it has ended; without a script 0, once init runs. */
  readonly awaitReady: Effect.Effect<number, VmEnded | NotReady | InitramfsIncomplete>
  /**
   * Run shell commands in the guest, as root, with no input, while its script runs or after it; several at once run one
   * after the other. For a guest whose initramfs `makeInitramfs` made.
   */
  readonly exec: (
    command: string,
    options?: ExecOptions
  ) => Effect.Effect<ExecResult, VmEnded | NotReady | InitramfsIncomplete | ExecFailed>
  /** Waits for the VM's end, of whatever kind. */
  readonly awaitExit: Effect.Effect<VmExit>
  /** As `awaitExit`, and says how the guest came to its end; one that switched itself off has `GuestExited`. */
  readonly ended: Effect.Effect<never, VmEnded>
  /**
   * Its memory while it runs: a read may be torn, and differ from the next. It reads nothing once the VM's scope has closed;
   * a `view` or `bytes` that was taken of it must not be kept beyond that.
   */
  readonly memory: Effect.Effect<GuestMemory, FormatError | VmEnded>
  /**
   * Stop every CPU until the scope closes. May be nested and shared: the guest moves on when the last scope has closed.
   * When it fails, the guest runs on.
   */
  readonly freeze: Effect.Effect<FrozenVm, FreezeFailed | VmEnded, Scope.Scope>
  /**
   * Watch for writes to 1, 2, 4 or 8 bytes of the kernel's virtual memory, aligned to their number, until the scope closes. Four
   * places at a time at most: an x86 CPU has debug registers for as many. On /dev/kvm the guest's own debug registers match
   * nothing meanwhile, and KVM has to run the guest on the CPU itself: where it emulates it (PVM) no write is seen.
   */
  readonly watchWrites: (
    address: bigint,
    bytes: number
  ) => Effect.Effect<WriteWatch, NotWatched | FreezeFailed | VmEnded, Scope.Scope>
}

/**
 * A place in the memory of a guest that is watched for writes.
 *
 * @since 0.1.0
 * @category models
 */
export interface WriteWatch {
  /**
   * Waits until the guest has been stopped and a CPU may have written there; it stands until the scope closes. The guest
   * is not let run before this was asked for again, so that no write is missed. Who waits compares the value: the
   * guest may have been stopped for another reason, or the value written be the one that was there.
   */
  readonly hit: Effect.Effect<void, NotWatched | VmEnded, Scope.Scope>
}

/**
 * The running guest of a program, for layers that share one: `Ktstr.layerVm`.
 *
 * @since 0.1.0
 * @category services
 */
export const Vm: Context.Tag<Vm, Vm> = Context.GenericTag<Vm>("ktstr/kvm/Vm")

/**
 * A guest at one instant: no CPU of it runs while the scope of `freeze` is open.
 *
 * @since 0.1.0
 * @category models
 */
export interface FrozenVm {
  /** It reads nothing once the *VM's* scope has closed; a `view` or `bytes` of it must not be kept beyond that. */
  readonly memory: GuestMemory
  /** When all CPUs were known to be stopped, in milliseconds since 1970. */
  readonly takenAt: number
  /** The CPUs, by number, where the engine is our own. */
  readonly vcpus?: ReadonlyArray<FrozenVcpu>
  /** The CPUs' registers, by number, read when asked, while they stand. */
  readonly registers: Effect.Effect<ReadonlyArray<CpuRegisters | Arm64Registers>, FreezeFailed>
}

/**
 * A parked CPU; `parkMicros` is the time from the freeze request until it was parked, in microseconds.
 *
 * @since 0.1.0
 * @category models
 */
export interface FrozenVcpu {
  readonly id: number
  readonly parkMicros: number
  readonly registers: VcpuRegisters
}

/**
 * The VM could not be started.
 *
 * @since 0.1.0
 * @category errors
 */
export class VmBootError extends Schema.TaggedError<VmBootError>("ktstr/VmBootError")("VmBootError", {
  subject: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `cannot boot ${this.subject}: ${this.why}; ${this.hint}`
  }
}

/**
 * The guest's kernel panicked; `line` is what it said.
 *
 * @since 0.1.0
 * @category errors
 */
export class GuestPanicked extends Schema.TaggedError<GuestPanicked>("ktstr/GuestPanicked")("GuestPanicked", {
  line: Schema.String
}) {
  override get message() {
    return `the guest panicked: ${this.line}; keep its console with consoleFile to see what led to it`
  }
}

/**
 * The VM ended while it was still needed.
 *
 * @since 0.1.0
 * @category errors
 */
export class GuestExited extends Schema.TaggedError<GuestExited>("ktstr/GuestExited")("GuestExited", {
  status: Schema.optional(Schema.Int),
  signal: Schema.optional(Schema.String),
  lastLine: Schema.optional(Schema.String),
  detail: Schema.optional(Schema.String)
}) {
  override get message() {
    const how = this.signal === undefined ? `status ${this.status ?? "unknown"}` : this.signal
    const detail = this.detail === undefined ? "" : `, ${this.detail}`
    return `the guest has ended (${how}${detail}); ${lastSaid(this.lastLine)}`
  }
}

/**
 * The guest did not report in time: `limit` says which of both limits is over, that on the whole or that on printing
 * nothing. Both are in seconds.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotReady extends Schema.TaggedError<NotReady>("ktstr/NotReady")("NotReady", {
  limit: Schema.Literal("whole", "silence"),
  seconds: Schema.Number,
  silenceSeconds: Schema.Number,
  lastLine: Schema.optional(Schema.String)
}) {
  override get message() {
    const { seconds, silenceSeconds } = this
    const why = this.limit === "whole"
      ? `within ${seconds} s (silence is allowed for ${silenceSeconds} s)`
      : `and printed nothing for ${silenceSeconds} s (${seconds} s are allowed in all)`
    const hint = this.limit === "whole" ? "raise timeout" : "raise silenceTimeout"
    return `the guest did not report ready ${why}; ${lastSaid(this.lastLine)}; ` +
      `${hint}, or keep its console with consoleFile`
  }
}

/**
 * The guest's kernel did not unpack all of its initramfs; the script was not run.
 *
 * @since 0.1.0
 * @category errors
 */
export class InitramfsIncomplete
  extends Schema.TaggedError<InitramfsIncomplete>("ktstr/InitramfsIncomplete")("InitramfsIncomplete", {
    files: Schema.Number,
    bytes: Schema.Number,
    /** The whole initramfs. */
    ofFiles: Schema.Number,
    ofBytes: Schema.Number
  })
{
  override get message() {
    return `the guest got ${this.files} files with ${this.bytes} bytes of its initramfs, ` +
      `which has ${this.ofFiles} with ${this.ofBytes}; raise memoryMib, or include less`
  }
}

/**
 * A command could not be run in the guest, or its end did not become known.
 *
 * @since 0.1.0
 * @category errors
 */
export class ExecFailed extends Schema.TaggedError<ExecFailed>("ktstr/ExecFailed")("ExecFailed", {
  command: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `${JSON.stringify(this.command.slice(0, 80))} in the guest: ${this.why}; ${this.hint}`
  }
}

/**
 * The VM was not frozen. With `seconds`: its CPUs did not stop in that time, and trying again may help. Without: the engine
 * refused, or its answers make no sense, and trying again does not help.
 *
 * @since 0.1.0
 * @category errors
 */
export class FreezeFailed extends Schema.TaggedError<FreezeFailed>("ktstr/FreezeFailed")("FreezeFailed", {
  why: Schema.String,
  seconds: Schema.optional(Schema.Number),
  /** The first CPU that was late, and what it was doing, where the engine knows. */
  vcpu: Schema.optional(Schema.Int),
  state: Schema.optional(Schema.String)
}) {
  override get message() {
    if (this.seconds !== undefined) {
      return `the guest did not stop within ${this.seconds} s: ${this.why}; is the host overloaded? try again`
    }
    return `the guest cannot be frozen: ${this.why}; boot it again`
  }
}

/**
 * Writes to a place in the guest's memory cannot be watched.
 *
 * @since 0.1.0
 * @category errors
 */
export class NotWatched extends Schema.TaggedError<NotWatched>("ktstr/NotWatched")("NotWatched", {
  place: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `writes to ${this.place} cannot be watched: ${this.why}; ${this.hint}`
  }
}

const lastSaid = (line: string | undefined) =>
  line === undefined ? "its console said nothing" : `its console last said ${JSON.stringify(line.slice(0, 200))}`

/**
 * The service behind the tag `VmEngine`.
 *
 * @since 0.1.0
 * @category models
 */
export interface VmEngineService {
  /** Start a VM; it ends with the scope. `Vm.awaitReady` waits for its script. */
  readonly boot: (spec: VmSpec) => Effect.Effect<Vm, VmBootError | HostLacks, Scope.Scope>
}

/**
 * Something that can boot a kernel. `Engine.ts` has a layer that finds the best that works here.
 *
 * @since 0.1.0
 * @category services
 */
export class VmEngine extends Context.Tag("ktstr/kvm/VmEngine")<VmEngine, VmEngineService>() {
  /**
   * Boots nothing: each boot gives a VM with these members; to use any other member of it is a defect.
   * @param vm may look at what was to be booted
   */
  static readonly layerTest = (vm: Partial<Vm> | ((spec: VmSpec) => Partial<Vm>)): Layer.Layer<VmEngine> =>
    Layer.succeed(VmEngine, {
      boot: (spec) =>
        Effect.sync(() => {
          const members = typeof vm === "function" ? vm(spec) : vm
          return new Proxy(members as Vm, {
            get: (target, name) => {
              if (Reflect.has(target, name) || typeof name === "symbol") return Reflect.get(target, name)
              throw new TypeError(`VmEngine.layerTest was given no Vm.${name}`)
            }
          })
        })
    })
}
