import * as Effect from "effect/Effect"

/** Milliseconds of work between two turns of the event loop. */
const SLICE = 8

/** When the event loop is known to have turned last. Shared by all, so that many short reads in a row pause too. */
let lastTurn = performance.now()

/** One turn of the event loop: timers, signals and sockets are served. Fibers that yield to one another do not do that. */
const turn: Effect.Effect<void> = Effect.async<void>((resume) => {
  const handle = setImmediate(() => {
    lastTurn = performance.now()
    resume(Effect.void)
  })
  return Effect.sync(() => clearImmediate(handle))
})

/** Whether 8 ms have passed since the last turn, so that long synchronous work should let the event loop turn. */
export const isTurnDue = (): boolean => performance.now() - lastTurn >= SLICE

/** A turn of the event loop if it is due, else nothing. */
export const pause: Effect.Effect<void> = Effect.suspend(() => isTurnDue() ? turn : Effect.void)
