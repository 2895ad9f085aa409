import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import { handler } from "../handler.ts"
import { watchdog } from "../source/every.ts"
import {
  core as coreFile,
  dmesg,
  html,
  machine,
  moments,
  monitor,
  onFailure,
  script,
  source,
  vm as guest,
  words
} from "../source/options.ts"

const handlers = () => import("./vm.ts")

const kernels = {
  kernel: words(
    "kernel",
    "ID",
    "boot this kernel: debian:6.12-cloud, 6.14, a path, or a key of `ktstr kernel list` (default: $KTSTR_KERNEL); given "
      + "several times: one after the other, and at the end a table on stderr of how each ended"
  ).pipe(Options.repeated)
}

const run = Command.make(
  "run",
  { ...machine, ...kernels, ...script, dmesg, onFailure, html, core: coreFile, monitor, ...moments, watchdog },
  handler(handlers, (module) => module.run)
)
  .pipe(
    Command.withDescription(
      "Boot a kernel, run commands in it, print their output, and exit with their status; the VM ends with them. Of several "
        + "kernels the first that did not end with 0 gives the exit code"
    )
  )

const shell = Command.make("shell", { ...machine, dmesg }, handler(handlers, (module) => module.shell)).pipe(
  Command.withDescription(
    "Boot a kernel and open a root shell in it. `exit` or Ctrl-D ends the shell and stops the VM; Ctrl-A x stops it "
      + "immediately; Ctrl-A Ctrl-A sends one Ctrl-A. If stdin is not a terminal, its commands are run as by vm run"
  )
)

const core = Command.make(
  "core",
  { ...guest, image: source.image, qemu: source.qemu, out: words("out", "FILE", "write the core to this file") },
  handler(() => import("./core.ts"), (module) => module.core)
).pipe(
  Command.withDescription(
    "Boot a kernel, run commands in it, freeze it, and write its memory and registers as an ELF core, which crash, drgn "
      + "and --image read. With --qemu: the same of a QEMU that runs. With --image: of an image, without registers. The file has "
      + "holes where memory holds only zeros"
  )
)

/** `ktstr vm …` */
export const vm = Command.make("vm").pipe(
  Command.withDescription("Run commands or a shell in a VM, or write its core"),
  Command.withSubcommands([run, shell, core])
)
