import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { loss, output, timeLimit } from "../source/options.ts"

const side = (name: string, which: string) =>
  Args.text({ name }).pipe(
    Args.withDescription(`${which}: a file written by dump --json or --ndjson, or an image of a guest's memory`)
  )

/** `ktstr diff A B` */
export const diff = Command.make("diff", {
  ...output,
  ...loss,
  ...timeLimit,
  from: side("first", "the earlier one"),
  to: side("second", "the later one")
}, handler(() => import("./diff.ts"), (module) => module.diff)).pipe(
  Command.withDescription("Compare two dumps, maps and scheduler; counters with rates")
)
