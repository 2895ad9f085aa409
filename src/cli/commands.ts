import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { filter, mapName, output, schema, target } from "./options.ts"
import { commandWords, words } from "./words.ts"

// The handlers' modules are imported when they run: `ktstr --help` must not load what only a dump needs.
const dump = Command.make("dump", {
  ...target,
  ...output,
  ...filter,
  schema
}, (config) => Effect.flatMap(Effect.promise(() => import("./dump.ts")), (module) => module.dump(config))).pipe(
  Command.withDescription(commandWords.dump.about)
)

const list = Command.make(
  "list",
  { ...target, ...output, type: filter.type, map: filter.map },
  (config) => Effect.flatMap(Effect.promise(() => import("./maps.ts")), (module) => module.list(config))
).pipe(
  Command.withDescription(commandWords.list.about)
)

const show = Command.make(
  "show",
  { ...target, ...output, limit: filter.limit, name: mapName },
  (config) => Effect.flatMap(Effect.promise(() => import("./maps.ts")), (module) => module.show(config))
).pipe(
  Command.withDescription(commandWords.show.about)
)

const maps = Command.make("maps").pipe(
  Command.withDescription(commandWords.maps.about),
  Command.withSubcommands([list, show])
)

const doctor = Command.make(
  "doctor",
  { json: output.json },
  (config) => Effect.flatMap(Effect.promise(() => import("./doctor.ts")), (module) => module.doctor(config))
).pipe(
  Command.withDescription(commandWords.doctor.about)
)

/** The whole command line. */
export const ktstr = Command.make("ktstr").pipe(
  Command.withDescription(words.about),
  Command.withSubcommands([dump, maps, doctor])
)

/** What each handler is given. */
export type Target = Command.Command.ParseConfig<typeof target>
export type Output = Command.Command.ParseConfig<typeof output>
export type Filter = Command.Command.ParseConfig<typeof filter>
