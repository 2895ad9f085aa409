import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { every } from "../source/every.ts"
import { filter, output, target } from "../source/options.ts"

export const watch = Command.make("watch", {
  ...target,
  map: filter.map,
  every,
  ndjson: output.ndjson
}, (config) =>
  Effect.flatMap(
    Effect.promise(() => import("./watch.ts")),
    (module) => module.watch(config)
  )).pipe(
    Command.withDescription(
      "Show which entries of BPF maps change, and how fast, until Ctrl-C: on this host, or in a VM, frozen for each reading"
    )
  )
