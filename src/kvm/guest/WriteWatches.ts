import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { hex } from "../../core/Address.ts"
import { type FreezeFailed, NotWatched, type VmEnded, type WriteWatch } from "../spec/VmEngine.ts"

/** An x86 CPU's debug registers for addresses, which KVM uses; what works emulated is to work there, too. */
const MOST_WATCHES = 4

/** An engine's means to watch a place in its guest's memory. */
interface WatchMeans {
  readonly freeze: Effect.Effect<unknown, FreezeFailed | VmEnded, Scope.Scope>
  /** Keeps a guest that has been stopped so from this call on, until what it gives is run. */
  readonly keep: () => Effect.Effect<void>
  /** Watch a place; run while the guest stands. */
  readonly set: Effect.Effect<unknown, NotWatched | VmEnded>
  /** Watch it no more; run while the guest stands. A failure means that there is nothing left to end. */
  readonly clear: Effect.Effect<unknown, NotWatched | VmEnded>
  /** Fails when nobody will hear of writes any more. */
  readonly lost: Effect.Effect<never, NotWatched | VmEnded>
}

/** The watches of a guest. */
export interface WriteWatches {
  /** `Vm.watchWrites`. */
  readonly watch: (
    address: bigint,
    bytes: number,
    means: WatchMeans
  ) => Effect.Effect<WriteWatch, NotWatched | FreezeFailed | VmEnded, Scope.Scope>
  /** To be called when the guest has been stopped for a write, or may have been. */
  readonly stands: () => void
}

/** A place that cannot be watched. */
export const notWatched = (address: bigint, bytes: number, why: string, hint: string): NotWatched =>
  new NotWatched({ place: `${bytes} bytes at ${hex(address)}`, why, hint })

/** The watches of a guest that has none yet. */
export const makeWriteWatches = (): WriteWatches => {
  /** Run when the guest stands again. */
  const standing = new Set<() => void>()
  let watches = 0

  const watch: WriteWatches["watch"] = (address, bytes, { clear, freeze, keep, lost, set }) =>
    Effect.gen(function*() {
      if (![1, 2, 4, 8].includes(bytes) || address % BigInt(bytes) !== 0n) {
        return yield* notWatched(address, bytes, "not aligned", "give 1, 2, 4 or 8 bytes, aligned to their number")
      }
      yield* Effect.acquireRelease(Effect.sync(() => watches++), () => Effect.sync(() => watches--))
      if (watches > MOST_WATCHES) {
        return yield* notWatched(address, bytes, `${MOST_WATCHES} places are watched already`, "end another watch")
      }
      const letGo: Array<Effect.Effect<void>> = []
      let wake = () => {}
      const stands = () => {
        letGo.push(keep())
        wake()
      }
      const stopped = Effect.interruptible(freeze)
      const watched = Effect.zipRight(stopped, set).pipe(
        Effect.tap(() => Effect.sync(() => standing.add(stands))),
        Effect.scoped
      )
      yield* Effect.acquireRelease(watched, () =>
        Effect.scoped(Effect.zipRight(stopped, clear)).pipe(
          Effect.ignore, // the VM has ended, or what watched it is of no more use
          Effect.ensuring(Effect.sync(() => standing.delete(stands))),
          Effect.zipRight(Effect.suspend(() => Effect.all(letGo.splice(0), { discard: true })))
        ))
      const stood = Effect.async<void>((resume) => {
        wake = () => resume(Effect.void)
        if (letGo.length > 0) wake()
      })
      const hit: WriteWatch["hit"] = Effect.asVoid(Effect.acquireRelease(
        Effect.map(Effect.interruptible(Effect.raceFirst(stood, lost)), () => letGo.shift()),
        (go) => go ?? Effect.void
      ))
      return { hit }
    })
  return { watch, stands: () => standing.forEach((stands) => stands()) }
}
