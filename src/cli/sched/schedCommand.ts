import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import { handler } from "../handler.ts"
import { every } from "../source/every.ts"
import { count, frozen, loss, output, schema, text, timeLimit, vm } from "../source/options.ts"

const handlers = () => import("./sched.ts")

const show = Command.make(
  "show",
  { ...frozen, ...output, ...loss, schema },
  handler(handlers, (module) => module.show)
).pipe(
  Command.withDescription(
    "Print one screen: the loaded scheduler, what each CPU does, queues, longest waits, what looks wrong"
  )
)

const tasks = Command.make("tasks", {
  ...frozen,
  ...output,
  ...loss,
  sort: Options.choice("sort", ["wait", "runtime", "vruntime", "switches", "pid"]).pipe(
    Options.withDescription("sort by this, most first (default pid)"),
    Options.withDefault("pid" as const)
  ),
  comm: text("comm", "RE", "only the tasks whose name this regular expression matches"),
  cpu: count("cpu", 0, "only the tasks of this CPU"),
  dsq: text("dsq", "ID", "only the tasks in dispatch queues with this id, or of this kind: local, global, bypass"),
  class: text("class", "CLASS", "only the tasks of this scheduling class: fair, ext, rt, dl, stop, idle")
}, handler(handlers, (module) => module.tasks)).pipe(
  Command.withDescription("List a kernel's threads: state, class, priorities, run time, where they wait")
)

const dsqs = Command.make("dsqs", {
  ...frozen,
  ...output,
  ...loss,
  id: Args.text({ name: "id" }).pipe(
    Args.withDescription("only the queues with this id, or of this kind: local, global, bypass"),
    Args.optional
  )
}, handler(handlers, (module) => module.dsqs)).pipe(
  Command.withDescription("List sched_ext's dispatch queues with their tasks in order")
)

const domains = Command.make(
  "domains",
  { ...frozen, ...output, ...loss },
  handler(handlers, (module) => module.domains)
).pipe(
  Command.withDescription("Show each CPU's scheduling domains and their statistics")
)

const watch = Command.make(
  "watch",
  {
    ...vm,
    every,
    ndjson: output.ndjson,
    count: count("count", 1, "end after N readings")
  },
  handler(() => import("./schedWatch.ts"), (module) => module.watch)
).pipe(
  Command.withDescription(
    "Stop a VM for one reading after another: rates, queue lengths, what looks wrong, until Ctrl-C; `ktstr monitor` does "
      + "not stop it"
  )
)

const side = (name: string, which: string) =>
  Args.text({ name }).pipe(
    Args.withDescription(`${which}: a file written by sched show --json or --ndjson, or an image of a guest's memory`),
    Args.optional
  )

const diff = Command.make("diff", {
  ...output,
  ...loss,
  ...timeLimit,
  schema,
  from: side("first", "the earlier one"),
  to: side("second", "the later one")
}, handler(() => import("./schedDiff.ts"), (module) => module.diff)).pipe(
  Command.withDescription(
    "Compare two readings: what ran, moved between queues, came or ended; counters with rates"
  )
)

/** `ktstr sched …` */
export const sched = Command.make("sched").pipe(
  Command.withDescription("Show run queues, tasks, dispatch queues, sched_ext state"),
  Command.withSubcommands([show, tasks, dsqs, domains, diff, watch])
)
