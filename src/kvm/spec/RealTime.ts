import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

const clock = Clock.make()

/**
 * Run with the real clock, also where the caller's is another (`TestClock`): a guest lives in real time, so limits on it,
 * and stamps of what was read from it, do too.
 */
export const inRealTime: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = Effect.withClock(clock)

/** A duration in seconds, as limits are said. */
export const seconds = (duration: Duration.Duration): number => Duration.toSeconds(duration)
