import * as Effect from "effect/Effect"

/** Waits until a word that threads share is no longer `seen`, or for `millis`; other work of the event loop gets its turn. */
export const changed = (words: Int32Array, word: number, seen: number, millis: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const change = Atomics.waitAsync(words, word, seen, millis)
    return Effect.promise<unknown>(() => change.async ? change.value : new Promise((resolve) => setImmediate(resolve)))
  })
