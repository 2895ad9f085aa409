import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { loss, output, target } from "../source/options.ts"

/** `ktstr links` */
export const links = Command.make(
  "links",
  { ...target, ...output, ...loss },
  handler(() => import("./links.ts"), (module) => module.links)
).pipe(Command.withDescription("List what BPF programs are attached to"))
