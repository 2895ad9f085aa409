import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { truncated } from "../../core/Reason.ts"
import { inRealTime } from "../../kvm/spec/RealTime.ts"
import { NotWatched, type Vm } from "../../kvm/spec/VmEngine.ts"
import { GuestKernel, type GuestKernelService } from "../../memory/GuestKernel.ts"
import type { FreezeError } from "./StopGuest.ts"
import { type SnapshotOptions, stamp, take } from "./TakeMoment.ts"
import type { TakenMoment } from "./TakenMoment.ts"
import { findPlace, type Place } from "./WatchedPlace.ts"

/**
 * Options of `onWrite`.
 *
 * @since 0.1.0
 * @category models
 */
export interface WriteOptions extends SnapshotOptions {
  /** Most moments to take; 64, and no more than that. */
  readonly limit?: number | undefined
}

const MOST_MOMENTS = 64
/** Most times that a guest is stopped for a write that changes nothing. */
const MOST_UNCHANGED = 1000

/**
 * Watches a kernel variable from now on, until the scope closes, and gives a moment each time that the guest changes it, right
 * after the write: `scx_root_000` and so on for `scx_root`. The guest stands until its moment is taken from the stream.
 *
 * A place is a symbol of the kernel's own, or `SYMBOL+OFFSET/BYTES`, of 1, 2, 4 or 8 bytes; without BYTES it has as many of
 * these as are aligned and before the next symbol. A write of the value that was there is passed over. The stream ends with
 * the guest, and after 64 moments or 1,000 such writes: then its last element says that later writes are left out.
 *
 * To be run once the guest's init is up, as it is after `Ktstr.boot`. Four places of an
 * x86-64 guest can be watched at a time.
 *
 * @since 0.1.0
 * @category reading
 */
export const onWrite = (
  vm: Vm,
  place: string,
  options: WriteOptions = {}
): Effect.Effect<Stream.Stream<TakenMoment, NotWatched>, NotWatched | FreezeError, Scope.Scope> =>
  Effect.map(watchPlace(vm, place, options), ({ hit, name, read, ...watched }) => {
    const limit = Math.max(0, Math.min(Math.trunc(options.limit ?? MOST_MOMENTS) || 0, MOST_MOMENTS))
    let { value } = watched
    let taken = 0
    let unchanged = 0
    let isOver = false
    const about = (before: string) => ({
      name: `${name}_${String(taken).padStart(3, "0")}`,
      cause: "write" as const,
      text: `${name} changed from ${before} to ${value}`
    })
    const leftOut = (before: string, why: string) => {
      isOver = true
      const reading = truncated(`${why}; writes from here on are left out`)
      return Effect.map(stamp, (at): TakenMoment => ({ ...about(before), at, pauseMillis: null, reading }))
    }
    const next = Effect.scoped(Effect.gen(function*() {
      yield* hit
      const before = value
      value = read()
      if (value === before) {
        return ++unchanged < MOST_UNCHANGED
          ? undefined
          : yield* leftOut(before, `${unchanged} writes have changed nothing`)
      }
      if (taken === limit) return yield* leftOut(before, `${limit} moments have been taken`)
      const moment = yield* take(vm, about(before), options)
      taken++
      return moment
    })).pipe(
      // of the others the guest has ended
      Effect.mapError((error) => error._tag === "NotWatched" ? Option.some(named(place, error)) : Option.none()),
      inRealTime
    )
    return Stream.repeatEffectOption(next).pipe(
      Stream.filterMap(Option.fromNullable),
      Stream.takeUntil(() => isOver)
    )
  }).pipe(Effect.withSpan("Snapshots.onWrite"))

/** Find a place and watch it, while the guest stands still. `value` is what is there then; values are hexadecimal. */
const watchPlace = (vm: Vm, text: string, { kernel: name = "the guest" }: SnapshotOptions) =>
  Effect.gen(function*() {
    const watching = yield* Effect.scope
    const attach = Effect.gen(function*() {
      const { memory } = yield* vm.freeze
      const kernel = yield* GuestKernel.fromMemory(memory, `memory of ${name}`)
      const place = findPlace(kernel, text)
      if (place instanceof NotWatched) return yield* place
      const value = readValue(kernel, place)
      if (value === undefined) {
        return yield* new NotWatched({
          place: text,
          why: kernel.space.faultText,
          hint: "give a variable of the kernel"
        })
      }
      const { hit } = yield* Scope.extend(vm.watchWrites(place.address, place.bytes), watching)
      return { name: place.name, value, read: () => readValue(kernel, place) ?? "what cannot be read", hit }
    })
    return yield* Effect.scoped(attach).pipe(
      Effect.mapError((error) => error._tag === "NotWatched" ? named(text, error) : error)
    )
  })

/** The failure of a watch with its place as it was given. */
const named = (place: string, { hint, why }: NotWatched) => new NotWatched({ place, why, hint })

/** The value at a place now. */
const readValue = ({ space }: GuestKernelService, { address, bytes }: Place): string | undefined => {
  space.flush()
  const read = space.read(address, bytes)
  return read === undefined ? undefined : `0x${Buffer.from(read).reverse().toString("hex").replace(/^0+(?=.)/, "")}`
}
