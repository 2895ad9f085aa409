import * as Effect from "effect/Effect"

/**
 * A command's handler, in a module that is imported when the command runs: `ktstr --help` must not load what only a dump
 * needs. `pick` takes the handler out of the module.
 */
export const handler = <Module, Config, A, E, R>(
  load: () => Promise<Module>,
  pick: (module: Module) => (config: Config) => Effect.Effect<A, E, R>
): (config: Config) => Effect.Effect<A, E, R> =>
(config) => Effect.flatMap(Effect.promise(load), (module) => pick(module)(config))
