import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { dumpSchema, html, timeLimit } from "../source/options.ts"

/** `ktstr show FILE` */
export const show = Command.make("show", {
  ...timeLimit,
  html,
  schema: dumpSchema,
  file: Args.text({ name: "file" }).pipe(
    Args.withDescription("a file that vm run --on-failure or --snapshot wrote, or a failed ktstr run"),
    Args.optional
  )
}, handler(() => import("./show.ts"), (module) => module.show)).pipe(
  Command.withDescription("Print a dump or snapshot that vm run or a failed run wrote")
)
