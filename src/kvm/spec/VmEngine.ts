import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { FormatError, HostLacks } from "../../core/Errors.ts"
import type { GuestMemory } from "../../memory/GuestMemory.ts"
import type { Topology, TopologySpec } from "./Topology.ts"
import type { VcpuRegisters } from "./VcpuRegisters.ts"
import type { VmDied } from "./VmDied.ts"

/** What to boot. Left out, each setting is the default said beside it. */
export interface VmSpec {
  /** Path of a bzImage, or (native engine only) of an ELF vmlinux. */
  readonly kernel: string
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
  /** How long from the boot's start `awaitReady` waits; 60 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
  /** A file that gets every byte of the console as it arrives; what it held is lost. */
  readonly consoleFile?: string | undefined
  /** QEMU's `-cpu`; `max`. `max,-la57` has no 5-level paging. Asks for the QEMU engine: the native one passes the host's CPU on. */
  readonly cpuModel?: string | undefined
}

/** Who executes the guest's instructions, and why it was chosen. */
export interface Acceleration {
  readonly by: "kvm" | "emulation"
  readonly why: string
}

/** How a VM came to its end: the exit status of its process or the signal that ended it. */
export interface VmExit {
  readonly status: number | undefined
  readonly signal: string | undefined
}

/** A terminal's size in characters, both above 0. */
export interface ConsoleSize {
  readonly rows: number
  readonly columns: number
}

/** A running guest; its scope ends it. */
export interface Vm {
  /** What it runs on: a QEMU process, or this process itself on /dev/kvm. */
  readonly engine: "qemu" | "kvm"
  readonly topology: Topology
  readonly acceleration: Acceleration
  /** The host's process that is the VM. */
  readonly pid: number
  /** The console's lines from the start (the newest 1 MiB of them) until the VM ends, for any number of readers. */
  readonly console: Stream.Stream<string>
  /**
   * The same as bytes, as they come, for a terminal: from the start, or the newest 1 MiB of it. While this is run, a
   * guest that writes faster than it is read waits, so that nothing is lost.
   */
  readonly consoleBytes: Stream.Stream<Uint8Array>
  /** Type at the console; waits while the guest does not read. */
  readonly type: (bytes: Uint8Array) => Effect.Effect<void, GuestPanicked | GuestExited | VmDied>
  /** Tell the guest how large the console's terminal is now; the init of a `shell` initramfs hears it. */
  readonly resize: (size: ConsoleSize) => Effect.Effect<void, GuestPanicked | GuestExited | VmDied>
  /** The lines that `console` would start with now. */
  readonly consoleTail: Effect.Effect<ReadonlyArray<string>>
  /** The first console line, past or to come, that matches. */
  readonly awaitLine: (pattern: RegExp) => Effect.Effect<string, GuestPanicked | GuestExited | VmDied>
  /** Waits until the guest's script has ended and gives its exit status; 0 where there is none and init is up. */
  readonly awaitReady: Effect.Effect<number, GuestPanicked | GuestExited | VmDied | NotReady>
  /** Waits for the VM's end, of whatever kind. */
  readonly awaitExit: Effect.Effect<VmExit>
  /** As `awaitExit`, and says how the guest came to its end; one that switched itself off has `GuestExited`. */
  readonly ended: Effect.Effect<never, GuestPanicked | GuestExited | VmDied>
  /**
   * Its memory while it runs: what is read may be torn, and change from one read to the next. Borrowed from the VM's
   * mapping: touched after the VM's scope has closed, it is a segmentation fault.
   */
  readonly memory: Effect.Effect<GuestMemory, FormatError | GuestPanicked | GuestExited | VmDied>
  /**
   * Stop every CPU until the scope closes. May be nested and shared: the guest moves on when the last scope has closed.
   * When it fails, the guest was let go again.
   */
  readonly freeze: Effect.Effect<FrozenVm, FreezeTimeout | GuestPanicked | GuestExited | VmDied, Scope.Scope>
}

/** A guest at one instant: no CPU of it runs while the scope of `freeze` is open. */
export interface FrozenVm {
  /** Borrowed from the VM's mapping: touched after the *VM's* scope has closed, it is a segmentation fault. */
  readonly memory: GuestMemory
  /** Milliseconds since 1970 at which all CPUs were known to stand. */
  readonly takenAt: number
  /** The CPUs, by number, where the engine can read them. */
  readonly vcpus?: ReadonlyArray<FrozenVcpu>
}

/** A CPU that stands; `parkMicros` is the time from the wish to freeze until it stood, in microseconds. */
export interface FrozenVcpu {
  readonly id: number
  readonly parkMicros: number
  readonly registers: VcpuRegisters
}

/** The VM did not come into being. */
export class VmBootError extends Schema.TaggedError<VmBootError>("ktstr/VmBootError")("VmBootError", {
  subject: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `cannot boot ${this.subject}: ${this.why}; ${this.hint}`
  }
}

/** The guest's kernel panicked; `line` is what it said. */
export class GuestPanicked extends Schema.TaggedError<GuestPanicked>("ktstr/GuestPanicked")("GuestPanicked", {
  line: Schema.String
}) {
  override get message() {
    return `the guest panicked: ${this.line}; keep its console with --console FILE to see what led there`
  }
}

/** The VM ended while something was wanted of it. */
export class GuestExited extends Schema.TaggedError<GuestExited>("ktstr/GuestExited")("GuestExited", {
  status: Schema.optional(Schema.Int),
  signal: Schema.optional(Schema.String),
  lastLine: Schema.optional(Schema.String),
  detail: Schema.optional(Schema.String)
}) {
  override get message() {
    const how = this.signal === undefined ? `status ${this.status ?? "unknown"}` : this.signal
    const detail = this.detail === undefined ? "" : `, ${this.detail}`
    return `the guest ended too early (${how}${detail}); ${lastSaid(this.lastLine)}; its script must not switch it off`
  }
}

/** The guest did not report in time. */
export class NotReady extends Schema.TaggedError<NotReady>("ktstr/NotReady")("NotReady", {
  seconds: Schema.Number,
  lastLine: Schema.optional(Schema.String)
}) {
  override get message() {
    return `the guest did not report ready within ${this.seconds} s; ${lastSaid(this.lastLine)}; ` +
      "give it longer with --timeout, or keep its console with --console FILE"
  }
}

/** The guest's CPUs did not stop in time. */
export class FreezeTimeout extends Schema.TaggedError<FreezeTimeout>("ktstr/FreezeTimeout")("FreezeTimeout", {
  seconds: Schema.Number,
  why: Schema.String,
  /** The first CPU that was late, and what it was doing, where the engine knows. */
  vcpu: Schema.optional(Schema.Int),
  state: Schema.optional(Schema.String)
}) {
  override get message() {
    return `the guest did not stop within ${this.seconds} s: ${this.why}; is the host overloaded? try again`
  }
}

const lastSaid = (line: string | undefined) =>
  line === undefined ? "its console said nothing" : `its console last said ${JSON.stringify(line.slice(0, 200))}`

/** Something that can boot a kernel. `Engine.ts` has a layer that finds the best that works here. */
export class VmEngine extends Context.Tag("ktstr/kvm/VmEngine")<VmEngine, {
  readonly boot: (spec: VmSpec) => Effect.Effect<Vm, VmBootError | HostLacks, Scope.Scope>
}>() {}
