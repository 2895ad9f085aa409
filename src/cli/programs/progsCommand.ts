import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { output, target } from "../source/options.ts"

const handlers = Effect.promise(() => import("./progs.ts"))

const list = Command.make(
  "list",
  { ...target, ...output },
  (config) => Effect.flatMap(handlers, (module) => module.list(config))
).pipe(
  Command.withDescription("List the BPF programs of a kernel: what they are for, their size, runs and time")
)

const show = Command.make("show", {
  ...target,
  ...output,
  name: Args.text({ name: "program" }).pipe(Args.withDescription("the program's name or id"))
}, (config) => Effect.flatMap(handlers, (module) => module.show(config))).pipe(
  Command.withDescription("Print all that the kernel knows of a program")
)

/** `ktstr progs …` */
export const progs = Command.make("progs").pipe(
  Command.withDescription("List the BPF programs of a kernel, or show one"),
  Command.withSubcommands([list, show])
)
