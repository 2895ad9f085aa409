import * as Options from "@effect/cli/Options"
import { ExpectedEnd } from "../../harness/claim/RunRecord.ts"
import { count, flag, machine, output, schema, text, timeLimit, words } from "../source/options.ts"

const mode = Options.choice("mode", ["auto", "kvm", "exact", "exact-coarse", "emulated"]).pipe(
  Options.withDescription(
    "how the guest is executed: exact is the same in each run of a seed (default auto: the best that works here, see "
      + "`ktstr doctor`)"
  ),
  Options.optional
)
const expect = Options.choice("expect", ExpectedEnd.literals).pipe(
  Options.withDescription("pass when the scheduler ends like this, in place of staying (default: it must stay)"),
  Options.optional
)
/** `--runs-dir` */
export const runsDir = text("runs-dir", "DIR", "where runs are kept (default: .ktstr/runs)")

/** Options of `ktstr run`. */
export const runOptions = {
  kernel: machine.kernel,
  topology: machine.topology,
  memoryMib: machine.memoryMib,
  scheduler: text("scheduler", "PROGRAM", "the scheduler to test (default: the kernel's own)"),
  schedulerArg: words("scheduler-arg", "WORD", "an argument of the scheduler").pipe(Options.repeated),
  ops: text("ops", "NAME", "the beginning of its name in sysfs (default: the program's name without scx_)"),
  expect,
  scenario: text("scenario", "FILE", "the workload, as JSON (default: a smoke test of 4 guest seconds)"),
  mode,
  seed: count("seed", 0, "the first seed (default 1); in the exact modes each seed gives another schedule"),
  seeds: count("seeds", 1, "run this many seeds, one after another (default 1)"),
  plan: flag("plan", "print what would be done in the guest, and boot nothing"),
  runsDir,
  json: output.json,
  schema,
  ...timeLimit
}
