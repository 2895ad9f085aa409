import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { dmesg, machine, script } from "../source/options.ts"

const handlers = () => import("./vm.ts")

const run = Command.make("run", { ...machine, ...script, dmesg }, handler(handlers, (module) => module.run)).pipe(
  Command.withDescription(
    "Boot a kernel, run commands in it, print their output, and exit with their status; the VM ends with them"
  )
)

const shell = Command.make("shell", { ...machine, dmesg }, handler(handlers, (module) => module.shell)).pipe(
  Command.withDescription(
    "Boot a kernel and open a root shell in it. `exit` or Ctrl-D ends the shell and stops the VM; Ctrl-A x stops it "
      + "immediately; Ctrl-A Ctrl-A sends one Ctrl-A. If stdin is not a terminal, its commands are run as by vm run"
  )
)

/** `ktstr vm …` */
export const vm = Command.make("vm").pipe(
  Command.withDescription("Boot a kernel and run commands in it, or open a shell"),
  Command.withSubcommands([run, shell])
)
