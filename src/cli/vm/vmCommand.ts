import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { flag, machine, script } from "../source/options.ts"

const dmesg = flag("dmesg", "let the kernel's messages onto the console too")

const run = Command.make(
  "run",
  { ...machine, ...script, dmesg },
  (config) => Effect.flatMap(Effect.promise(() => import("./vm.ts")), (module) => module.run(config))
).pipe(
  Command.withDescription(
    "Boot a kernel, run commands in it with their output on stdout, and end with their exit status; the VM goes with them"
  )
)

const shell = Command.make(
  "shell",
  { ...machine, dmesg },
  (config) => Effect.flatMap(Effect.promise(() => import("./vm.ts")), (module) => module.shell(config))
).pipe(
  Command.withDescription(
    "Boot a kernel and give a root shell in it; exit or Ctrl-D ends it and the VM, Ctrl-A x does at once, Ctrl-A Ctrl-A "
      + "types one Ctrl-A. Without a terminal on stdin, the commands there are run, as vm run does"
  )
)

export const vm = Command.make("vm").pipe(
  Command.withDescription("Boot a kernel and run commands in it, or use it from a shell"),
  Command.withSubcommands([run, shell])
)
