import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

/**
 * Give each piece to `write` until one is not taken; whether all were. In constant memory, which
 * `Stream.runForEachWhile` is not: it keeps a continuation, some 650 bytes, for each piece.
 */
export const copyWhile = <A, E, E2, R>(
  pieces: Stream.Stream<A, E2, R>,
  write: (piece: A) => Effect.Effect<boolean, E>
): Effect.Effect<boolean, E | E2, R> =>
  Stream.runForEach(
    Stream.mapError(pieces, Option.some<E | E2>),
    (piece) =>
      Effect.filterOrFail(
        Effect.mapError(write(piece), Option.some<E | E2>),
        (taken) => taken,
        () => Option.none<E | E2>()
      )
  ).pipe(
    Effect.as(true),
    Effect.catchAll(Option.match({ onNone: () => Effect.succeed(false), onSome: Effect.fail }))
  )
