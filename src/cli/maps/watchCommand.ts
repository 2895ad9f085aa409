import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { every } from "../source/every.ts"
import { filter, output, source, vm } from "../source/options.ts"

/** `ktstr watch` */
export const watch = Command.make("watch", {
  ...vm,
  live: source.live,
  map: filter.map,
  every,
  ndjson: output.ndjson
}, handler(() => import("./watch.ts"), (module) => module.watch)).pipe(
  Command.withDescription("Show which map entries change, how fast, until Ctrl-C")
)
