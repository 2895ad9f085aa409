import * as Effect from "effect/Effect"

/** Milliseconds of work between two turns of the event loop. */
const SLICE = 8

/** One turn of the event loop: timers, signals and sockets are served. Fibers that yield to one another do not do that. */
const turn: Effect.Effect<void> = Effect.async<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

/** When long synchronous work should let the event loop turn: `due` once 8 ms have passed since the last turn. */
export class Pause {
  private last = performance.now()

  get due(): boolean {
    return performance.now() - this.last >= SLICE
  }

  /** A turn of the event loop if it is due, else nothing. */
  readonly now: Effect.Effect<void> = Effect.suspend(() =>
    this.due ? Effect.map(turn, () => void (this.last = performance.now())) : Effect.void
  )
}
