import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { unreadable } from "../../core/Reason.ts"
import { inRealTime } from "../../kvm/spec/RealTime.ts"
import type { Vm } from "../../kvm/spec/VmEngine.ts"
import { captureReading } from "./CaptureReading.ts"
import { stopGuest } from "./StopGuest.ts"
import type { TakenMoment } from "./TakenMoment.ts"

/**
 * Options of all ways to take moments.
 *
 * @since 0.1.0
 * @category models
 */
export interface SnapshotOptions {
  /** Name of the kernel, for the readings' `source`; `the guest`. */
  readonly kernel?: string | undefined
}

type About = Pick<TakenMoment, "name" | "cause" | "text">

/** The host's time now. */
export const stamp = Effect.map(Clock.currentTimeMillis, (millis) => new Date(millis).toISOString())

/** As `take`, with whether the guest did not stop in time. */
export const attempt = (vm: Vm, about: About, { kernel = "the guest" }: SnapshotOptions) =>
  Effect.gen(function*() {
    const at = yield* stamp
    const start = performance.now()
    let isTimeout = false
    const reading: TakenMoment["reading"] = yield* Effect.scoped(
      Effect.flatMap(stopGuest(vm, kernel), (guest) => captureReading(guest, {}))
    ).pipe(
      Effect.catchAll((error) => {
        isTimeout = error._tag === "FreezeFailed" && error.seconds !== undefined
        return Effect.succeed(unreadable(error.message))
      })
    )
    const pauseMillis = "kind" in reading ? null : Math.round((performance.now() - start) * 10) / 10
    const moment: TakenMoment = { ...about, at, pauseMillis, reading }
    return { moment, isTimeout }
  }).pipe(inRealTime, Effect.withSpan("Snapshots.take"))

/** Stop a guest, read all of it, and let it move on. */
export const take = (vm: Vm, about: About, options: SnapshotOptions = {}): Effect.Effect<TakenMoment> =>
  Effect.map(attempt(vm, about, options), ({ moment }) => moment)
