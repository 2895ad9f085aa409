import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import { handler } from "../handler.ts"
import { count, flag, machine, output, schema, text, timeLimit, words } from "../source/options.ts"

const mode = Options.choice("mode", ["auto", "kvm", "exact", "exact-coarse", "emulated"]).pipe(
  Options.withDescription(
    "how the guest is executed: exact is the same in each run of a seed (default auto: the best that works here, see "
      + "`ktstr doctor`)"
  ),
  Options.optional
)
const runsDir = text("runs-dir", "DIR", "where runs are kept (default: .ktstr/runs)")

/** Options of `ktstr run`. */
export const runOptions = {
  kernel: machine.kernel,
  topology: machine.topology,
  memoryMib: machine.memoryMib,
  scheduler: text("scheduler", "PROGRAM", "the scheduler to test (default: the kernel's own)"),
  schedulerArg: words("scheduler-arg", "WORD", "an argument of the scheduler").pipe(Options.repeated),
  ops: text("ops", "NAME", "its name in sysfs begins so (default: the program's name without scx_)"),
  scenario: text("scenario", "FILE", "the workload, as JSON (default: a smoke test of 2 guest seconds)"),
  mode,
  seed: count("seed", 0, "the first seed (default 1): another one is another schedule in the modes exact"),
  seeds: count("seeds", 1, "run as many seeds, one after the other (default 1)"),
  plan: flag("plan", "print what would be done in the guest, and boot nothing"),
  runsDir,
  json: output.json,
  schema,
  ...timeLimit
}

/** `ktstr run` */
export const run = Command.make("run", runOptions, handler(() => import("./run.ts"), (module) => module.run)).pipe(
  Command.withDescription("Test a scheduler under a workload in a VM, with a verdict")
)

/** `ktstr replay` */
export const replay = Command.make("replay", {
  run: Args.text({ name: "run" }).pipe(Args.withDescription("a run's id, its folder, or its run.json")),
  runsDir,
  json: output.json,
  ...timeLimit
}, handler(() => import("./run.ts"), (module) => module.replay)).pipe(
  Command.withDescription("Run a kept run again; in mode exact it must be the same")
)
