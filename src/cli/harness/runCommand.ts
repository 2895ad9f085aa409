import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { output, timeLimit } from "../source/options.ts"
import { listOptions, runOptions, runsDir } from "./runOptions.ts"

/** `ktstr run` */
export const run = Command.make("run", runOptions, handler(() => import("./run.ts"), (module) => module.run)).pipe(
  Command.withDescription("Test a scheduler under a workload in a VM, with a verdict")
)

/** `ktstr list` */
export const list = Command.make("list", listOptions, handler(() => import("./list.ts"), (module) => module.list)).pipe(
  Command.withDescription("List the runs of these options, or tests; boot nothing")
)

/** `ktstr replay` */
export const replay = Command.make("replay", {
  run: Args.text({ name: "run" }).pipe(Args.withDescription("a run's id, its folder, or its run.json")),
  runsDir,
  json: output.json,
  ...timeLimit
}, handler(() => import("./run.ts"), (module) => module.replay)).pipe(
  Command.withDescription("Rerun a recorded run and compare the two records")
)
