import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as GuestMapAccessor from "../../bpf/guest/GuestMapAccessor.ts"
import type { BpfUnreadable, MapAccessorService } from "../../bpf/MapAccessor.ts"
import { DUMP_VERSION, type Header } from "../../bpf/Report.ts"
import { hex } from "../../core/Address.ts"
import type { FormatError } from "../../core/FormatError.ts"
import { stage } from "../../core/Progress.ts"
import { unreadable } from "../../core/Reason.ts"
import type { FreezeFailed, Vm, VmEnded } from "../../kvm/spec/VmEngine.ts"
import { bootIdentity } from "../../memory/BootIdentity.ts"
import type { NoBtf, NotAKernel } from "../../memory/Errors.ts"
import { GuestKernel, type GuestKernelService } from "../../memory/GuestKernel.ts"
import type { StoppedGuest } from "./CaptureReading.ts"

/**
 * A frozen kernel, ready to be read: the header of its dump, the kernel, and its maps.
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
 * Failures of attaching to a kernel in memory.
 *
 * @since 0.1.0
 * @category errors
 */
export type AttachError = NotAKernel | NoBtf | FormatError | BpfUnreadable

/**
 * Failures of freezing a guest and attaching to it.
 *
 * @since 0.1.0
 * @category errors
 */
export type FreezeError = FreezeFailed | VmEnded | AttachError

/**
 * Freeze a VM that `boot` gave, and attach to its memory, until the scope closes. What was made of it fails as unreadable
 * after that; to compare two freezes keep a `dump` of the first, or use `watchMaps` of `ktstr/bpf`.
 * @param name of the kernel, for the header and for messages
 *
 * @since 0.1.0
 * @category reading
 */
export const freezeAndAttach = Effect.fn("Ktstr.freezeAndAttach")(
  function*(vm: Vm, name: string): Effect.fn.Return<Snapshot, FreezeError, Scope.Scope> {
    const start = performance.now()
    const frozen = yield* stage("freeze", "Ktstr.freeze", { kernel: name })(vm.freeze)
    const millis = Math.round((performance.now() - start) * 10) / 10
    // A reader that is kept after the freeze must fail, instead of reading a guest that runs again.
    const memory = yield* Effect.acquireRelease(
      Effect.sync(() => frozen.memory.borrow()),
      (memory) => Effect.sync(() => memory.release())
    )
    const kernel = yield* stage("attach", "Ktstr.attach", { kernel: name })(
      GuestKernel.fromMemory(memory, `memory of ${name}`)
    )
    return yield* snapshot(kernel, {
      source: sourceOf(vm, name),
      freeze: { at: new Date(frozen.takenAt).toISOString(), millis, cpus: vm.topology.cpus }
    })
  }
)

/** As `freezeAndAttach`, with the registers, or why they could not be read. */
export const stopGuest = (vm: Vm, name: string): Effect.Effect<StoppedGuest, FreezeError, Scope.Scope> =>
  Effect.gen(function*() {
    const snapshot = yield* freezeAndAttach(vm, name)
    const registers = yield* Effect.flatMap(vm.freeze, (frozen) => frozen.registers).pipe(
      Effect.catchAll((error) => Effect.succeed(unreadable(error.message)))
    )
    return { ...snapshot, registers }
  })

/** A VM as the source in a dump's header. */
export const sourceOf = (vm: Vm, kernel: string): Header["source"] => ({
  kind: "vm",
  engine: vm.engine === "kvm" ? "kvm" : `qemu (${vm.acceleration.by})`,
  kernel
})

/** An attached kernel with its maps and the header of its dump; `racing`: it runs on. */
export const snapshot = (
  kernel: GuestKernelService,
  from: Pick<Header, "source" | "freeze">,
  consistency: "frozen" | "racing" = "frozen"
): Effect.Effect<Snapshot, BpfUnreadable> =>
  Effect.gen(function*() {
    const maps = yield* Effect.provideService(GuestMapAccessor.makeWith(consistency), GuestKernel, kernel)
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
    return { header, kernel, maps }
  })
