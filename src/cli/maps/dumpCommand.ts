import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { filter, loss, out, output, schema, target } from "../source/options.ts"

/** `ktstr dump` */
export const dump = Command.make(
  "dump",
  { ...target, ...output, ...loss, ...filter, out, schema },
  handler(() => import("./dump.ts"), (module) => module.dump)
).pipe(Command.withDescription("Print a kernel's BPF maps, entry by entry, with C types"))
