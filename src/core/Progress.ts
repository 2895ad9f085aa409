import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/**
 * The service behind the reference `Progress`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProgressService {
  /** Runs `work`, which is the stage `name`. */
  readonly around: <A, E, R>(name: string, work: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/**
 * Who is told of the stages of long work, such as "boot guest". By default nobody; the command shows them on stderr.
 * A `Context.Reference`, so no program has to provide it.
 *
 * @since 0.1.0
 * @category services
 */
export class Progress extends Context.Reference<Progress>()("ktstr/core/Progress", {
  defaultValue: (): ProgressService => ({ around: (_name, work) => work })
}) {}

/**
 * Make `work` a stage, shown as progress under its name while it runs, and a tracing span: of the same name, or of `span`
 * where the name has data in it, with that data as attributes.
 *
 * @since 0.1.0
 * @category utilities
 */
export const stage =
  (name: string, span: string = name, attributes: Readonly<Record<string, unknown>> = {}) =>
  <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Progress, (progress) => progress.around(name, Effect.withSpan(work, span, { attributes })))
