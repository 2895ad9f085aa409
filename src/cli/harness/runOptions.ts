import * as Args from "@effect/cli/Args"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Effect from "effect/Effect"
import { ExpectedEnd } from "../../harness/claim/ExpectedEnd.ts"
import { topologyOf } from "../../harness/scenario/TopologyPresets.ts"
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

/** The options whose every combination is a run. */
export const axes = {
  kernel: words("kernel", "ID", "test on this kernel; several: on each (default: $KTSTR_KERNEL)").pipe(
    Options.repeated
  ),
  topology: words(
    "topology",
    "NAME|N,L,C,T",
    "on this machine; several: on each. tiny-2llc, smt-2llc, numa2-4llc …, or NUMA nodes, last-level caches in total, cores "
      + "per cache, threads per core (default: 1,1,2,1)"
  ).pipe(
    Options.repeated,
    Options.mapEffect(Effect.forEach((name) =>
      Effect.mapBoth(topologyOf(name), {
        onFailure: ({ message }) => ValidationError.invalidValue(HelpDoc.p(`--topology: ${message}`)),
        onSuccess: (spec) => ({ name, spec })
      })
    ))
  ),
  scenario: text("scenario", "FILE", "the workload, as JSON (default: a smoke test of 4 guest seconds)"),
  seed: count("seed", 0, "the first seed (default 1); in the exact modes each seed gives another schedule"),
  seeds: count("seeds", 1, "this many seeds, one after another (default 1)")
}

const files = Args.file({ name: "file" }).pipe(
  Args.withDescription(
    "a workload as JSON, or a test file, which the project's vitest runs: each it.ktstr of it on the kernels, machines and seeds "
      + "given here, in place of its own"
  ),
  Args.repeated
)

/** Options of `ktstr run`. */
export const runOptions = {
  files,
  ...axes,
  memoryMib: machine.memoryMib,
  scheduler: text("scheduler", "PROGRAM", "the scheduler to test (default: the kernel's own)"),
  schedulerArg: words("scheduler-arg", "WORD", "an argument of the scheduler").pipe(Options.repeated),
  ops: text("ops", "NAME", "the beginning of its name in sysfs (default: the program's name without scx_)"),
  expect,
  mode,
  repeat: count("repeat", 1, "run each of them that often; in the exact modes all must be the same (default 1)"),
  plan: flag("plan", "print what would be done in the guest, and boot nothing"),
  runsDir,
  json: flag("json", "print the record of each run as JSON, one a line, as they end"),
  schema,
  ...timeLimit
}

/** Options of `ktstr list`. */
export const listOptions = {
  files: Args.text({ name: "file" }).pipe(
    Args.withDescription("a workload as JSON, or a test file, whose tests the project's vitest collects"),
    Args.repeated
  ),
  ...axes,
  json: output.json,
  ...timeLimit
}
