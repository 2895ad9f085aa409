import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Effect from "effect/Effect"
import { every } from "../source/every.ts"
import { count, output, schema, target, text } from "../source/options.ts"

const handlers = Effect.promise(() => import("./sched.ts"))

const show = Command.make(
  "show",
  { ...target, ...output, schema },
  (config) => Effect.flatMap(handlers, (module) => module.show(config))
).pipe(
  Command.withDescription(
    "One screen: the scheduler that is loaded, what each CPU does, queues, who waits longest, what looks wrong"
  )
)

const tasks = Command.make("tasks", {
  ...target,
  ...output,
  sort: Options.choice("sort", ["wait", "runtime", "vruntime", "switches", "pid"]).pipe(
    Options.withDescription("the task with the most of this first; pid if not given"),
    Options.withDefault("pid" as const)
  ),
  comm: text("comm", "RE", "only the tasks whose name this regular expression matches"),
  cpu: count("cpu", 0, "only the tasks of this CPU"),
  dsq: text("dsq", "ID", "only the tasks in dispatch queues with this id, or of this kind: local, global, bypass"),
  class: text("class", "CLASS", "only the tasks of this scheduling class: fair, ext, rt, dl, stop, idle")
}, (config) => Effect.flatMap(handlers, (module) => module.tasks(config))).pipe(
  Command.withDescription("List all threads of a kernel: state, class, priorities, run time, where they wait")
)

const dsqs = Command.make("dsqs", {
  ...target,
  ...output,
  id: Args.text({ name: "id" }).pipe(
    Args.withDescription("only the queues with this id, or of this kind: local, global, bypass"),
    Args.optional
  )
}, (config) => Effect.flatMap(handlers, (module) => module.dsqs(config))).pipe(
  Command.withDescription("List sched_ext's dispatch queues with their tasks in order")
)

const domains = Command.make(
  "domains",
  { ...target, ...output },
  (config) => Effect.flatMap(handlers, (module) => module.domains(config))
).pipe(
  Command.withDescription("Show each CPU's scheduling domains and their statistics")
)

const watch = Command.make(
  "watch",
  { ...target, every, ndjson: output.ndjson },
  (config) => Effect.flatMap(Effect.promise(() => import("./schedWatch.ts")), (module) => module.watch(config))
).pipe(
  Command.withDescription(
    "Read a VM again and again: rates of its counters, and the length of its queues, until Ctrl-C"
  )
)

/** `ktstr sched …` */
export const sched = Command.make("sched").pipe(
  Command.withDescription("Show the scheduler's state: run queues, tasks, dispatch queues, domains"),
  Command.withSubcommands([show, tasks, dsqs, domains, watch])
)
