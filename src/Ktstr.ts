/**
 * Whole pipelines, composed from the rooms' services: a kernel booted, frozen and read, or an image read. For single
 * stages import the rooms: `ktstr/btf`, `ktstr/memory`, …; the layer of `Native` is `ktstr/native`.
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { makeGuestMapAccessor } from "./bpf/guest/GuestMapAccessor.ts"
import { MapAccessor, type MapAccessorService } from "./bpf/MapAccessor.ts"
import { DUMP_VERSION, type Header } from "./bpf/Report.ts"
import { hex } from "./core/Address.ts"
import type { HostLacks } from "./core/Errors.ts"
import { KernelResolver, type ResolveError } from "./core/kernels/KernelResolver.ts"
import { kernelModules } from "./core/kernels/Modules.ts"
import { stage } from "./core/Progress.ts"
import type { IncludeError } from "./kvm/guest/HostFiles.ts"
import { lastWords } from "./kvm/guest/Init.ts"
import { type InitramfsSpec, makeInitramfs } from "./kvm/guest/Initramfs.ts"
import {
  type FreezeFailed,
  type FreezeTimeout,
  type InitramfsIncomplete,
  type NotReady,
  Vm,
  type VmBootError,
  type VmEnded,
  VmEngine,
  type VmSpec
} from "./kvm/spec/VmEngine.ts"
import { bootIdentity } from "./memory/BootIdentity.ts"
import { GuestKernel, type GuestKernelService } from "./memory/GuestKernel.ts"

/**
 * A kernel that stands still, ready to be read: what a dump says first, the kernel, and its maps.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  readonly header: Header
  readonly kernel: GuestKernelService
  readonly maps: MapAccessorService
}

/**
 * The commands in the guest ended with another status than 0.
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
 * What to boot: the settings of the VM, and what its initramfs is made of.
 *
 * @since 0.1.0
 * @category models
 */
export interface BootOptions extends Omit<VmSpec, "initramfs">, InitramfsSpec {
  /** A kernel id: `debian:6.12-cloud`, or a path. */
  readonly kernel: string
  /** Names of kernel modules to load before the script, with all that they depend on; built-in ones are fine. */
  readonly modules?: ReadonlyArray<string> | undefined
}

/** What a disk needs, on either engine; a kernel that has them built in, or cannot have them, needs none. */
const DISK_MODULES = ["virtio_pci", "virtio_mmio", "virtio_blk"]

/**
 * All that getting a kernel and making its initramfs can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type PrepareError =
  | ResolveError
  | IncludeError
  | HostLacks
  | Effect.Effect.Error<ReturnType<typeof kernelModules>>

/**
 * All that booting can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type BootError = PrepareError | VmBootError | VmEnded | NotReady | InitramfsIncomplete | ScriptFailed

/**
 * All that attaching to a kernel in memory can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type AttachError =
  | Effect.Effect.Error<ReturnType<typeof GuestKernel.fromMemory>>
  | Effect.Effect.Error<typeof makeGuestMapAccessor>

/**
 * All that freezing and attaching to a guest can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type FreezeError = FreezeFailed | FreezeTimeout | VmEnded | AttachError

/**
 * All that opening an image can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type ImageError = AttachError | Effect.Effect.Error<ReturnType<typeof GuestKernel.open>>

/**
 * What booting stands on.
 *
 * @since 0.1.0
 * @category models
 */
export type BootServices = KernelResolver | VmEngine | FileSystem.FileSystem

/**
 * What to boot, made ready.
 *
 * @since 0.1.0
 * @category models
 */
export interface Prepared {
  /** What `uname -r` will say. */
  readonly release: string
  /** What an engine boots. */
  readonly spec: VmSpec
}

/**
 * Read an image of a guest's memory; `vmlinux` only for kernels that do not describe themselves.
 *
 * @since 0.1.0
 * @category constructors
 */
export const openImage = Effect.fn("Ktstr.openImage")(
  function*(
    path: string,
    options: { readonly vmlinux?: string } = {}
  ): Effect.fn.Return<Snapshot, ImageError, Effect.Effect.Context<ReturnType<typeof GuestKernel.open>>> {
    const kernel = yield* stage("attach")(GuestKernel.open(path, options))
    return yield* snapshot(kernel, { source: { kind: "image", path }, freeze: null })
  }
)

/**
 * Get the kernel and make the initramfs: what an engine boots, and what `uname -r` of it will say.
 *
 * @since 0.1.0
 * @category constructors
 */
export const prepare = Effect.fn("Ktstr.prepare")(
  function*(options: BootOptions): Effect.fn.Return<Prepared, PrepareError, KernelResolver | FileSystem.FileSystem> {
    const kernel = yield* stage(`kernel ${options.kernel}`, "kernel.resolve", { kernel: options.kernel })(
      Effect.flatMap(KernelResolver, (resolver) => resolver.resolve(options.kernel))
    )
    const { image, release } = kernel
    const forDisks = options.disks === undefined || options.disks.length === 0 ? [] : DISK_MODULES
    const needed = yield* kernelModules(kernel, forDisks, { optional: true })
    const asked = yield* kernelModules(kernel, options.modules ?? [], { optional: false })
    for (const name of asked.builtIn) yield* Effect.logInfo(`module ${name} is built into ${release}`)
    const guestModules = Array.from(
      new Map([...needed.modules, ...asked.modules].map((one) => [one.name, one])).values()
    )
    const initramfs = yield* stage("initramfs")(makeInitramfs({ ...options, guestModules }))
    const spec: VmSpec = { ...options, kernel: image, initramfs }
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
    return yield* stage(label, "vm.run", { release, kernel: options.kernel })(
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
 * Freeze a VM that `boot` gave, and attach to its memory: it stands still while the scope is open. After that what was made
 * of it fails as unreadable; to compare two freezes keep a dump of the first, or use `watchMaps`.
 *
 * @since 0.1.0
 * @category reading
 */
export const freezeAndAttach = Effect.fn("Ktstr.freezeAndAttach")(
  function*(vm: Vm, name: string): Effect.fn.Return<Snapshot, FreezeError, Scope.Scope> {
    const start = performance.now()
    const frozen = yield* stage("freeze")(vm.freeze)
    const millis = Math.round((performance.now() - start) * 10) / 10
    // What is kept of this freeze after its end reads nothing, instead of what the guest does then.
    const memory = yield* Effect.acquireRelease(
      Effect.sync(() => frozen.memory.borrow()),
      (memory) => Effect.sync(() => memory.release())
    )
    const kernel = yield* stage("attach")(GuestKernel.fromMemory(memory, `memory of ${name}`))
    return yield* snapshot(kernel, {
      source: { kind: "vm", engine: vm.engine === "kvm" ? "kvm" : `qemu (${vm.acceleration.by})`, kernel: name },
      freeze: { at: new Date(frozen.takenAt).toISOString(), millis, cpus: vm.topology.cpus }
    })
  }
)

/**
 * Boot a kernel in a VM, wait until its script has ended, freeze it and attach to its memory. The guest stands still
 * while the scope is open, and is gone after it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const bootAndFreeze = Effect.fn("Ktstr.bootAndFreeze")(function*(
  options: BootOptions
): Effect.fn.Return<Snapshot, BootError | FreezeError, BootServices | Scope.Scope> {
  return yield* freezeAndAttach(yield* boot(options), options.kernel)
})

/** The console's lines without those of the kernel and of our init. */
const scriptLines = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.filter((line) => line.trim() !== "" && !/^\[ *\d+\.\d+\]/.test(line) && !lastWords.test(line))

const snapshot = (kernel: GuestKernelService, from: Pick<Header, "source" | "freeze">) =>
  Effect.gen(function*() {
    const maps = yield* Effect.provideService(makeGuestMapAccessor, GuestKernel, kernel)
    const header: Header = {
      schema: "single",
      version: DUMP_VERSION,
      ...from,
      kernel: {
        release: kernel.release,
        pageTableLevels: kernel.space.table.levels,
        kaslrOffset: hex(kernel.kaslrOffset),
        possibleCpus: kernel.perCpuOffsets.filter((offset) => offset !== undefined).length,
        boot: bootIdentity(kernel)
      }
    }
    return { header, kernel, maps } satisfies Snapshot
  })

const services = <E, R>(open: Effect.Effect<Snapshot, E, R>) =>
  Layer.scopedContext(
    Effect.map(open, ({ kernel, maps }) => Context.make(GuestKernel, kernel).pipe(Context.add(MapAccessor, maps)))
  )

/**
 * `boot` as a layer: one running guest, with its script done, for all who use `Vm`; it lives as long as the layer.
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
export const layerImage = (path: string, options?: { readonly vmlinux?: string }) => services(openImage(path, options))

/**
 * `bootAndFreeze` as a layer of its services: the guest lives as long as the layer.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerBoot = (options: BootOptions) => services(bootAndFreeze(options))

export { GuestKernel, KernelResolver, MapAccessor, Vm, VmEngine }
export { dump, type DumpSource, ndjson } from "./bpf/report/DumpSnapshot.ts"
