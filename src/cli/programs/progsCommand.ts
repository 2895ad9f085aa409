import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { loss, output, target } from "../source/options.ts"

const handlers = () => import("./progs.ts")

const list = Command.make("list", { ...target, ...output, ...loss }, handler(handlers, (module) => module.list)).pipe(
  Command.withDescription("List a kernel's BPF programs: type, size, runs and time")
)

const show = Command.make("show", {
  ...target,
  ...output,
  ...loss,
  name: Args.text({ name: "program" }).pipe(Args.withDescription("the program's name or id"))
}, handler(handlers, (module) => module.show)).pipe(
  Command.withDescription("Print everything the kernel knows about a program")
)

/** `ktstr progs …` */
export const progs = Command.make("progs").pipe(
  Command.withDescription("List BPF programs, or show one"),
  Command.withSubcommands([list, show])
)
