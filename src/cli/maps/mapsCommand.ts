import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { filter, loss, mapName, output, target } from "../source/options.ts"
import { write } from "./writeCommand.ts"

const handlers = () => import("./maps.ts")

const list = Command.make(
  "list",
  { ...target, ...output, ...loss, type: filter.type, map: filter.map },
  handler(handlers, (module) => module.list)
).pipe(Command.withDescription("List a kernel's BPF maps"))

const show = Command.make(
  "show",
  { ...target, ...output, ...loss, limit: filter.limit, inner: filter.inner, name: mapName },
  handler(handlers, (module) => module.show)
).pipe(Command.withDescription("Print one map: what it is, and its entries"))

/** `ktstr maps …` */
export const maps = Command.make("maps").pipe(
  Command.withDescription("List BPF maps, show one, or write into one"),
  Command.withSubcommands([list, show, write])
)
