import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Reason, unreadable } from "../../core/Reason.ts"
import { inRealTime } from "../../kvm/spec/RealTime.ts"
import type { Vm, VmEnded } from "../../kvm/spec/VmEngine.ts"
import { type MonitorError, type MonitorOptions, watch } from "../Monitor.ts"
import { defaultRules, type Rule } from "../Rules.ts"
import { pointsOf } from "./PointsOf.ts"
import { attempt, type SnapshotOptions, stamp, take } from "./TakeMoment.ts"
import type { TakenMoment } from "./TakenMoment.ts"

export { onWrite, type WriteOptions } from "./OnWrite.ts"
export type { SnapshotOptions } from "./TakeMoment.ts"

/**
 * Options of `periodic`.
 *
 * @since 0.1.0
 * @category models
 */
export interface PeriodicOptions extends SnapshotOptions {
  /** How many; as many as fit are taken: 64 at most, 100 ms apart at least. */
  readonly points: number
  /** How long the run is expected to take from now on, without the pauses for moments. */
  readonly over: Duration.DurationInput
}

/** A guest that did not stop in time this often in a row is not asked again. */
const MOST_TIMEOUTS = 2

/**
 * Stop a guest now, read all of it, and let it move on. A moment that could not be taken says why.
 *
 * @since 0.1.0
 * @category reading
 */
export const now = (vm: Vm, name: string, options?: SnapshotOptions): Effect.Effect<TakenMoment> =>
  take(vm, { name, cause: "asked", text: "it was asked for" }, options)

/**
 * Moments at even points between a tenth and nine tenths of a run, `periodic_000` and so on. The points move on by the time that
 * the guest stood still for earlier ones. Once it did not stop in time twice in a row, or has ended, the points left say so at once.
 *
 * @since 0.1.0
 * @category reading
 */
export const periodic = (vm: Vm, options: PeriodicOptions): Stream.Stream<TakenMoment> =>
  Stream.unwrap(Effect.sync(() => {
    const start = performance.now()
    let paused = 0
    let timeouts = 0
    let over: Reason | undefined
    const points = pointsOf(options.points, Duration.toMillis(options.over))
    return Stream.mapEffect(Stream.fromIterable(points.entries()), ([index, point]) =>
      Effect.gen(function*() {
        const name = `periodic_${String(index).padStart(3, "0")}`
        const about = { name, cause: "periodic", text: `point ${index + 1} of ${points.length}` } as const
        if (over !== undefined) return { ...about, at: yield* stamp, pauseMillis: null, reading: over }
        const wait = Effect.sleep(Duration.millis(Math.max(0, start + paused + point - performance.now())))
        const ended = yield* Effect.raceFirst(
          Effect.as(wait, undefined),
          Effect.flip(vm.ended) // the points to come cannot be taken any more
        )
        if (ended !== undefined) {
          over = unreadable(ended.message)
          return { ...about, at: yield* stamp, pauseMillis: null, reading: over }
        }
        const { isTimeout, moment } = yield* attempt(vm, about, options)
        paused += moment.pauseMillis ?? 0
        timeouts = isTimeout ? timeouts + 1 : 0
        if (timeouts >= MOST_TIMEOUTS) over = unreadable(`the guest did not stop in time ${timeouts} times in a row`)
        return moment
      }).pipe(inRealTime))
  }))

/**
 * A moment when a line that matches comes on the console, or at once if one has come.
 *
 * @since 0.1.0
 * @category reading
 */
export const onLine = (
  vm: Vm,
  name: string,
  pattern: RegExp,
  options?: SnapshotOptions
): Effect.Effect<TakenMoment, VmEnded> =>
  Effect.flatMap(vm.awaitLine(pattern), (text) => take(vm, { name, cause: "line", text }, options))

/**
 * A moment when a rule is broken; its name is the rule's.
 *
 * @since 0.1.0
 * @category reading
 */
export const onRule = (
  vm: Vm,
  rules: ReadonlyArray<Rule> = defaultRules,
  options: SnapshotOptions & MonitorOptions = {}
): Effect.Effect<TakenMoment, MonitorError> =>
  watch(vm, rules, options).pipe(
    Effect.catchTag(
      "RuleBroken",
      (broken) => take(vm, { name: broken.rule, cause: "rule", text: broken.message }, options)
    )
  )
