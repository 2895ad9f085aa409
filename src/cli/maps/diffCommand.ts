import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { output } from "../source/options.ts"

const side = (name: string, which: string) =>
  Args.text({ name }).pipe(
    Args.withDescription(`${which}: a file with what dump --json or --ndjson printed, or an image of a guest's memory`)
  )

/** `ktstr diff A B` */
export const diff = Command.make("diff", {
  ...output,
  from: side("first", "the earlier one"),
  to: side("second", "the later one")
}, (config) => Effect.flatMap(Effect.promise(() => import("./diff.ts")), (module) => module.diff(config))).pipe(
  Command.withDescription(
    "Say what differs between two dumps: maps, entries, fields, and counters by how much and how fast"
  )
)
