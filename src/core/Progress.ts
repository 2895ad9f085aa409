import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/**
 * The service behind the reference `Progress`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProgressService {
  /** Runs `work`, a stage that people know as `label`. */
  readonly around: <A, E, R>(label: string, work: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/**
 * The receiver of the stages of long work, such as "boot guest". By default nobody; the command shows them on stderr.
 * A `Context.Reference`, so no program has to provide it.
 *
 * @since 0.1.0
 * @category services
 */
export class Progress extends Context.Reference<Progress>()("ktstr/core/Progress", {
  defaultValue: (): ProgressService => ({ around: (_label, work) => work })
}) {}

/**
 * Make `work` a stage: shown as progress under `label` while it runs, and a tracing span. A span's name is fixed; what
 * differs from one run to the next is in its attributes.
 *
 * @since 0.1.0
 * @category utilities
 */
export const stage =
  (label: string, span: string, attributes: Readonly<Record<string, unknown>> = {}) =>
  <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Progress, (progress) => progress.around(label, Effect.withSpan(work, span, { attributes })))
