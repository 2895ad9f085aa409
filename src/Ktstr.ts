/**
 * Whole pipelines, composed of the rooms' services: boot a kernel, freeze it and read it, or read an image. `layer` has
 * all that they need. For single stages import the rooms: `ktstr/btf`, `ktstr/memory`, …
 */
import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { MapAccessor } from "./bpf/MapAccessor.ts"
import type { HostLacks, SyscallError } from "./core/Errors.ts"
import type { FormatError } from "./core/FormatError.ts"
import { KernelResolver, type ResolveError } from "./core/kernels/KernelResolver.ts"
import { kernelModules, type ModuleMissing } from "./core/kernels/Modules.ts"
import type { Native } from "./core/Native.ts"
import { stage } from "./core/Progress.ts"
import { unreadable } from "./core/Reason.ts"
import * as Engine from "./kvm/Engine.ts"
import type { IncludeError } from "./kvm/guest/HostFiles.ts"
import { type InitramfsSpec, makeInitramfs } from "./kvm/guest/Initramfs.ts"
import { scriptLines } from "./kvm/guest/ScriptLines.ts"
import { attachQemu, type QemuAttachFailed, runningQemu } from "./kvm/qemu/QemuAttach.ts"
import { inRealTime } from "./kvm/spec/RealTime.ts"
import {
  type InitramfsIncomplete,
  type NotReady,
  Vm,
  type VmBootError,
  type VmEnded,
  VmEngine,
  type VmSpec
} from "./kvm/spec/VmEngine.ts"
import type { WrongKernel } from "./memory/Errors.ts"
import { GuestKernel } from "./memory/GuestKernel.ts"
import type { GuestMemory } from "./memory/GuestMemory.ts"
import type { Failure } from "./monitor/Failure.ts"
import {
  type CapturedFailure,
  captureFailure,
  degradedFailure,
  readFailureLog,
  saysWhyItEnded
} from "./monitor/FailureDump.ts"
import {
  type AttachError,
  freezeAndAttach,
  type FreezeError,
  type Snapshot,
  snapshot,
  sourceOf,
  stopGuest
} from "./monitor/moments/StopGuest.ts"
import type { TakenMoment } from "./monitor/moments/TakenMoment.ts"

/**
 * The script in the guest ended with a status other than 0. `lastLines` are the last three that it printed.
 *
 * @since 0.1.0
 * @category errors
 */
export class ScriptFailed extends Schema.TaggedError<ScriptFailed>("ktstr/ScriptFailed")("ScriptFailed", {
  status: Schema.Int,
  lastLines: Schema.Array(Schema.String)
}) {
  override get message() {
    const said = this.lastLines.length === 0 ? "it said nothing" : `it last said: ${this.lastLines.join(" | ")}`
    return `the script in the guest failed with exit status ${this.status}; ${said}`
  }
}

/**
 * A guest to boot: the settings of the VM, and the contents of its initramfs.
 *
 * @since 0.1.0
 * @category models
 */
export interface BootOptions extends Omit<VmSpec, "initramfs" | "unpacked">, InitramfsSpec {
  /** A kernel id, such as `debian:6.12-cloud`, `6.14` or a path: see `KernelId`. */
  readonly kernel: string
  /**
   * Boot with KASLR, if the kernel has it; false. Without it an emulated guest starts from the unpacked kernel of the cache, which
   * takes less time, and has 4-level page tables.
   */
  readonly kaslr?: boolean | undefined
  /** Kernel modules to load before the script, with their dependencies; a built-in one needs no loading. */
  readonly modules?: ReadonlyArray<string> | undefined
}

/** Modules that a disk needs, on either engine, as far as the kernel has them as modules. */
const DISK_MODULES = ["virtio_pci", "virtio_mmio", "virtio_blk"]
/** Modules that a share needs. */
const SHARE_MODULES = ["virtio_pci", "virtiofs"]

/**
 * Failures of getting a kernel and making its initramfs.
 *
 * @since 0.1.0
 * @category errors
 */
export type PrepareError =
  | ResolveError
  | IncludeError
  | HostLacks
  | ModuleMissing
  | FormatError

/**
 * Failures of booting.
 *
 * @since 0.1.0
 * @category errors
 */
export type BootError = PrepareError | VmBootError | VmEnded | NotReady | InitramfsIncomplete | ScriptFailed

/**
 * Failures of opening an image.
 *
 * @since 0.1.0
 * @category errors
 */
export type ImageError = AttachError | SyscallError | WrongKernel

/**
 * Failures of attaching to a QEMU that someone else started.
 *
 * @since 0.1.0
 * @category errors
 */
export type QemuError = AttachError | QemuAttachFailed

/**
 * The services that booting needs; `layer` gives the first two.
 *
 * @since 0.1.0
 * @category models
 */
export type BootServices = KernelResolver | VmEngine | FileSystem.FileSystem

/**
 * How to read an image.
 *
 * @since 0.1.0
 * @category models
 */
export interface ImageOptions {
  /** Path of the vmlinux that ran, only for kernels that do not describe themselves (before 6.0). */
  readonly vmlinux?: string | undefined
}

/**
 * A kernel and its initramfs, ready to be booted.
 *
 * @since 0.1.0
 * @category models
 */
export interface Prepared {
  /** The release that `uname -r` prints in the guest. */
  readonly release: string
  /** For `VmEngine.boot`. */
  readonly spec: VmSpec
}

/**
 * Read an image of a guest's memory, which stays mapped until the scope closes. What was made of it fails as unreadable
 * after that. `/proc/kcore` is this host's own memory, of a kernel that runs on: maps are `racing` then.
 *
 * @since 0.1.0
 * @category constructors
 */
export const openImage = Effect.fn("Ktstr.openImage")(
  function*(
    path: string,
    options: ImageOptions = {}
  ): Effect.fn.Return<Snapshot, ImageError, Native | Scope.Scope> {
    const kernel = yield* stage("attach", "Ktstr.attach", { path })(GuestKernel.open(path, options))
    const header = { source: { kind: "image", path }, freeze: null } as const
    return yield* snapshot(kernel, header, kernel.memory.running ? "racing" : "frozen")
  }
)

/**
 * How to read a QEMU's guest. `racy`: it runs on meanwhile, and no monitor is asked; see `runningQemu`.
 *
 * @since 0.1.0
 * @category models
 */
export interface QemuOptions {
  readonly racy?: boolean | undefined
}

/**
 * Stop the guest of a QEMU that someone else started, and attach to its memory, until the scope closes; see `attachQemu`. What
 * was made of it fails as unreadable after that.
 * @param qemu path of the monitor's socket, or the number of QEMU's process
 *
 * @since 0.1.0
 * @category constructors
 */
export const openQemu = Effect.fn("Ktstr.openQemu")(
  function*(
    qemu: string | number,
    options: QemuOptions = {}
  ): Effect.fn.Return<Snapshot, QemuError, Native | Scope.Scope> {
    const attach = (memory: GuestMemory) =>
      stage("attach", "Ktstr.attach", { qemu })(GuestKernel.fromMemory(memory, `memory of QEMU ${qemu}`))
    if (options.racy === true) {
      const { memory, pid } = yield* stage("find memory", "Ktstr.findMemory", { qemu })(runningQemu(qemu))
      const source = { kind: "qemu", qemu: String(qemu), pid } as const
      return yield* snapshot(yield* attach(memory), { source, freeze: null }, "racing")
    }
    const start = performance.now()
    const { cpus, memory, pid, takenAt } = yield* stage("freeze", "Ktstr.freeze", { qemu })(attachQemu(qemu))
    const millis = Math.round((performance.now() - start) * 10) / 10
    return yield* snapshot(yield* attach(memory), {
      source: { kind: "qemu", qemu: String(qemu), pid },
      freeze: { at: new Date(takenAt).toISOString(), millis, cpus }
    })
  }
)

/**
 * Get the kernel and make the initramfs, without booting it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const prepare = Effect.fn("Ktstr.prepare")(
  function*(options: BootOptions): Effect.fn.Return<Prepared, PrepareError, KernelResolver | FileSystem.FileSystem> {
    const resolver = yield* KernelResolver
    const kernel = yield* stage(`kernel ${options.kernel}`, "Ktstr.resolve", { kernel: options.kernel })(
      resolver.resolve(options.kernel)
    )
    const { image, release, unpacked } = kernel
    const arm64Programs = kernel.arch === "arm64" ? options.arm64Programs ?? (yield* resolver.arm64Programs) : undefined
    const forDevices = [
      ...((options.disks ?? []).length === 0 ? [] : DISK_MODULES),
      ...((options.shares ?? []).length === 0 ? [] : SHARE_MODULES)
    ]
    const needed = yield* kernelModules(kernel, forDevices, { optional: true })
    const asked = yield* kernelModules(kernel, options.modules ?? [], { optional: false })
    for (const name of asked.builtIn) yield* Effect.logInfo(`module ${name} is built into ${release}`)
    const guestModules = Array.from(
      new Map([...needed.modules, ...asked.modules].map((one) => [one.name, one])).values()
    )
    const initramfs = yield* stage("initramfs", "Ktstr.initramfs", { release })(
      makeInitramfs({ ...options, guestModules, arm64Programs })
    )
    const spec: VmSpec = {
      ...options,
      kernel: image,
      unpacked: options.kaslr === true ? undefined : unpacked,
      initramfs
    }
    return { release, spec }
  }
)

/**
 * Boot a kernel in a VM and wait until its script has ended. The guest goes on running until the scope closes.
 *
 * @since 0.1.0
 * @category constructors
 */
export const boot = Effect.fn("Ktstr.boot")(
  function*(options: BootOptions): Effect.fn.Return<Vm, BootError, BootServices | Scope.Scope> {
    const { release, spec } = yield* prepare(options)
    const engine = yield* VmEngine
    const label = `boot ${release}${options.script === undefined ? "" : " and run the script"}`
    return yield* stage(label, "Ktstr.run", { release, kernel: options.kernel })(
      Effect.gen(function*() {
        const vm: Vm = yield* engine.boot(spec)
        const status = yield* vm.awaitReady
        if (status !== 0) {
          return yield* new ScriptFailed({ status, lastLines: scriptLines(yield* vm.consoleTail).slice(-3) })
        }
        return vm
      })
    )
  }
)

/**
 * Boot a kernel in a VM, wait until its script has ended, freeze it and attach to its memory. The guest ends with the
 * scope.
 *
 * @since 0.1.0
 * @category constructors
 */
export const bootAndFreeze = Effect.fn("Ktstr.bootAndFreeze")(function*(
  options: BootOptions
): Effect.fn.Return<Snapshot, BootError | FreezeError, BootServices | Scope.Scope> {
  return yield* freezeAndAttach(yield* boot(options), options.kernel)
})

/** Longest wait for the kernel's words about a scheduler that it has ended. */
const WORDS_WAIT = "30 seconds"
const WORDS_LOOK = "20 millis"

/**
 * Stop a guest that failed, and read all of it: `awaitFailure` of `ktstr/monitor` gives the failure. The guest moves on
 * once it is read; of a failed scheduler the kernel's words are waited for. `sealFailure` makes the document.
 * @param name of the kernel, for the header
 * @param early the guest before the failure: `awaitFailure` can have it taken
 * @param beside run when the guest has been read and before it moves on, also where it could not be read or stopped: for
 * a core of the same instant, by `vm.freeze`
 *
 * @since 0.1.0
 * @category reading
 */
export const recordFailure = Effect.fn("Ktstr.recordFailure")(
  function*<E = never, R = never>(
    vm: Vm,
    name: string,
    failure: Failure,
    early?: TakenMoment,
    beside?: Effect.Effect<void, E, R>
  ): Effect.fn.Return<CapturedFailure, E, R> {
    const read = Effect.gen(function*() {
      const guest = yield* stopGuest(vm, name)
      return yield* captureFailure(failure, { ...guest, console: yield* vm.consoleTail }, early)
    }).pipe(
      Effect.catchAll((error) =>
        Effect.map(
          vm.consoleTail,
          (console) => degradedFailure(failure, sourceOf(vm, name), unreadable(error.message), console, early)
        )
      )
    )
    const captured = yield* Effect.scoped(Effect.zipLeft(read, beside ?? Effect.void))
    if (failure.kind !== "scheduler") return captured
    const words = Effect.gen(function*() {
      const kernel = yield* GuestKernel.fromMemory(yield* vm.memory, `memory of ${name}`)
      for (;;) {
        kernel.space.flush()
        const log = readFailureLog(kernel)
        if (saysWhyItEnded(log)) return log
        yield* Effect.sleep(WORDS_LOOK)
      }
    })
    return yield* words.pipe(
      Effect.timeoutFail({
        duration: WORDS_WAIT,
        onTimeout: () => ({ message: `the kernel did not say within ${WORDS_WAIT} that it ended the scheduler` })
      }),
      Effect.match({
        onSuccess: (log) => ({ ...captured, log }),
        onFailure: ({ message }) => ({ ...captured, log: { ...captured.log, problem: unreadable(message) } })
      }),
      inRealTime
    )
  }
)

const services = <E, R>(
  open: Effect.Effect<Snapshot, E, R>
): Layer.Layer<GuestKernel | MapAccessor, E, Exclude<R, Scope.Scope>> =>
  Layer.scopedContext(
    Effect.map(open, ({ kernel, maps }) => Context.make(GuestKernel, kernel).pipe(Context.add(MapAccessor, maps)))
  )

/**
 * All that the pipelines need of the host: `KernelResolver`, the engine that works best here (`Engine.layer`) and `Native`,
 * whose koffi is loaded when the layer is built, not before. Give it Node's files and processes:
 *
 *     Ktstr.layer.pipe(Layer.provideMerge(NodeContext.layer))
 *
 * `LiveHost.layer` is not in it: building that fails on a host whose kernel has no BTF.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<
  KernelResolver | VmEngine | Native,
  never,
  FileSystem.FileSystem | CommandExecutor.CommandExecutor
> = Layer.merge(KernelResolver.layer, Engine.layer).pipe(
  Layer.provideMerge(
    Layer.unwrapEffect(Effect.map(Effect.promise(() => import("./core/NativeKoffi.ts")), (koffi) => koffi.layer))
  )
)

/**
 * `boot` as a layer: one running guest, whose script has ended, shared by all that use `Vm`. It ends with the layer.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerVm = (options: BootOptions): Layer.Layer<Vm, BootError, BootServices> =>
  Layer.scoped(Vm, boot(options))

/**
 * `openImage` as a layer of its services.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerImage = (
  path: string,
  options?: ImageOptions
): Layer.Layer<GuestKernel | MapAccessor, ImageError, Native> => services(openImage(path, options))

/**
 * `bootAndFreeze` as a layer of its services. The guest ends with the layer.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerFrozenVm = (
  options: BootOptions
): Layer.Layer<GuestKernel | MapAccessor, BootError | FreezeError, BootServices> => services(bootAndFreeze(options))

export { GuestKernel, KernelResolver, MapAccessor, Vm, VmEngine }
export { type AttachError, freezeAndAttach, type FreezeError, type Snapshot }
export { dump, type DumpSource, ndjson } from "./bpf/report/DumpSnapshot.ts"
