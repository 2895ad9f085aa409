import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type { Ora } from "ora"
import { Progress } from "../../core/Progress.ts"
import { escapeLine } from "./escapeControls.ts"
import { writeMessage } from "./Streams.ts"

/** `0.4 ms`, `12 ms`, `9.8 s`. */
export const duration = (millis: number): string =>
  millis < 1
    ? `${millis.toFixed(1)} ms`
    : millis < 1000
    ? `${Math.round(millis)} ms`
    : `${(millis / 1000).toFixed(1)} s`

/** A terminal that does not know its size has no columns, and ora then clears lines for ever. */
const canSpin = (): boolean => process.stderr.isTTY && process.stderr.columns > 0

/** A spinner on the terminal; nothing where there is none: ora takes 30 ms to load. */
const startSpinner = (text: string): Effect.Effect<Ora | undefined> =>
  canSpin()
    ? Effect.map(
      Effect.promise(() => import("ora")),
      // the cursor stays: ora would listen to signals to bring it back, which then could not end synchronous work
      ({ default: ora }) => ora({ text, stream: process.stderr, discardStdin: false, hideCursor: false }).start()
    )
    : Effect.succeed(undefined)

/**
 * Shows each stage on stderr: a spinner while it runs (on a terminal only), then a line with the time it took. Stages
 * that failed leave no line: the error says it all.
 */
export const layer: Layer.Layer<Progress> = Layer.succeed(Progress, {
  around: <A, E, R>(stage: string, work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Clock.currentTimeMillis, (start) => {
      const name = escapeLine(stage)
      return Effect.acquireUseRelease(
        startSpinner(name),
        () => work,
        (spinner, exit) =>
          Effect.map(Clock.currentTimeMillis, (end) => {
            spinner?.stop()
            if (Exit.isSuccess(exit)) writeMessage(`  ${name}: ${duration(end - start)}\n`)
          })
      )
    })
})
