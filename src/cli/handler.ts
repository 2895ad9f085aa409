import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

/** The options that every command takes. */
interface Limited {
  readonly timeout: Option.Option<number>
}

/**
 * A command's handler, in a module that is imported when the command runs: `ktstr --help` must not load what only a dump
 * needs. `pick` takes the handler out of the module. It ends, whatever it does, when its `--timeout` is over.
 */
export const handler = <Module, Config, A, E, R>(
  load: () => Promise<Module>,
  pick: (module: Module) => (config: Config) => Effect.Effect<A, E, R>
) =>
(config: Config & Limited) => {
  const command = Effect.flatMap(Effect.promise(load), (module) => pick(module)(config))
  const { timeout } = config
  return Option.isNone(timeout)
    ? command
    : Effect.flatMap(
      Effect.promise(() => import("./terminal/timeLimit.ts")),
      ({ withTimeLimit }) => withTimeLimit(timeout.value, command)
    )
}
