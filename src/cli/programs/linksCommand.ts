import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { output, target } from "../source/options.ts"

/** `ktstr links` */
export const links = Command.make(
  "links",
  { ...target, ...output },
  (config) => Effect.flatMap(Effect.promise(() => import("./links.ts")), (module) => module.links(config))
).pipe(
  Command.withDescription("List what the BPF programs of a kernel are attached to")
)
