import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Reason } from "../../core/Reason.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { readDomains } from "../../sched/Domains.ts"
import { waitingMillis } from "../../sched/Findings.ts"
import { readSched, type SchedSnapshot } from "../../sched/SchedState.ts"
import { readTime } from "../../sched/SchedTime.ts"
import type { DispatchQueue } from "../../sched/scx/DispatchQueues.ts"
import type { Task } from "../../sched/tasks/Tasks.ts"
import { headerText } from "../maps/present.ts"
import { type Answer, problemLines, problemRecords, writeAnswer } from "../source/answer.ts"
import type { Loss, Output, Target } from "../source/options.ts"
import { format, Live, openTarget } from "../source/snapshot.ts"
import { UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import * as Stages from "../terminal/Stages.ts"
import { schedRecords } from "./schedRecords.ts"
import { domainsText, dsqsText, showText, tasksText } from "./schedText.ts"

const showSchema = Effect.all([
  Effect.promise(() => import("./ShowDocument.ts")), // 14 ms, that only this is worth
  Effect.promise(() => import("effect/JSONSchema"))
]).pipe(
  Effect.flatMap(([{ ShowDocument }, { make }]) => writeText(`${JSON.stringify(make(ShowDocument), null, 2)}\n`))
)

export const show = (config: Target & Output & Loss & { readonly schema: boolean }) =>
  config.schema
    ? showSchema
    : run(config, ({ header, sched }) => ({
      document: () => ({ ...header, sched }),
      records: () => schedRecords(header, sched),
      text: () => headerText(header) + showText(sched) + problemLines(sched.problems)
    }))

/** Which tasks, and in what order. */
interface TaskFilter {
  readonly sort: "wait" | "runtime" | "vruntime" | "switches" | "pid"
  readonly comm: Option.Option<string>
  readonly cpu: Option.Option<number>
  readonly dsq: Option.Option<string>
  readonly class: Option.Option<string>
}

export const tasks = (config: Target & Output & Loss & TaskFilter) =>
  Effect.gen(function*() {
    const comm = yield* Effect.try({
      try: () => new RegExp(Option.getOrElse(config.comm, () => ""), "u"),
      catch: () =>
        new UsageError({ problem: `--comm needs a regular expression, not ${Option.getOrElse(config.comm, () => "")}` })
    })
    yield* run(config, ({ header, kernel, sched }) => {
      const time = readTime(kernel)
      const queues = matching(sched.dispatchQueues, Option.getOrUndefined(config.dsq))
      const inQueues = new Set(queues.flatMap((queue) => queue.tasks.map(({ address }) => address)))
      const found = listed(sched.tasks).filter((task) =>
        comm.test(task.comm)
        && Option.match(config.cpu, { onNone: () => true, onSome: (cpu) => task.cpu === cpu })
        && Option.match(config.class, { onNone: () => true, onSome: (name) => task.class === name })
        && (Option.isNone(config.dsq) || inQueues.has(task.address))
      )
      const rank: { readonly [S in TaskFilter["sort"]]: (task: Task) => number } = {
        wait: (task) => -(waitingMillis({ ...time }, task) ?? -1),
        runtime: ({ se }) => -Number(se?.sum_exec_runtime ?? 0),
        vruntime: ({ se }) => -Number(se?.vruntime ?? 0),
        switches: ({ nivcsw, nvcsw }) => -(Number(nvcsw ?? 0) + Number(nivcsw ?? 0)),
        pid: ({ pid }) => pid
      }
      const ordered = found.map((task) => ({ task, by: rank[config.sort](task) }))
        .sort((a, b) => a.by - b.by).map(({ task }) => task)
      const problems = [...reasonOf(sched.tasks), ...sched.problems]
      return {
        document: () => ({ ...header, tasks: ordered, problems }),
        records: () => [...ordered.map((task) => ({ record: "task", ...task })), ...problemRecords(problems)],
        text: () => headerText(header) + tasksText(ordered, time, sched) + problemLines(problems)
      }
    })
  })

export const dsqs = (config: Target & Output & Loss & { readonly id: Option.Option<string> }) =>
  run(config, ({ header, sched }) => {
    const wanted = Option.getOrUndefined(config.id)
    const queues = matching(sched.dispatchQueues, wanted)
    const none = wanted === undefined || queues.length > 0 || "kind" in sched.dispatchQueues
      ? []
      : [{ kind: "absent" as const, text: `no dispatch queue has the id or kind ${wanted}` }]
    const problems = [...reasonOf(sched.dispatchQueues), ...sched.problems, ...none]
    return {
      document: () => ({ ...header, dispatchQueues: queues, problems }),
      records: () => [...queues.map((queue) => ({ record: "dispatchQueue", ...queue })), ...problemRecords(problems)],
      text: () => headerText(header) + dsqsText(queues) + problemLines(problems)
    }
  })

export const domains = (config: Target & Output & Loss) =>
  run(config, ({ header, kernel }) => {
    const cpus = readDomains(kernel)
    const problems = cpus.flatMap(({ problem }) => problem ?? [])
    return {
      document: () => ({ ...header, domains: cpus }),
      records: () => cpus.map((cpu) => ({ record: "domains", ...cpu })),
      text: () => headerText(header) + domainsText(cpus) + problemLines(problems)
    }
  })

interface Read extends Effect.Effect.Success<ReturnType<typeof openTarget>> {
  readonly sched: SchedSnapshot
}

const run = (config: Target & Output & Loss, answerOf: (read: Read) => Answer) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    const snapshot = yield* openTarget(config)
    yield* checkStandsStill(snapshot.kernel)
    yield* writeAnswer(as, config, answerOf({ ...snapshot, sched: readSched(snapshot.kernel) }))
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

/** Fails for a kernel that is running, as that of /proc/kcore: parts of different moments say nothing together. */
export const checkStandsStill = ({ memory }: GuestKernelService): Effect.Effect<void, UsageError> =>
  memory.running
    ? new UsageError({
      problem: "cannot read the scheduler of a kernel that is running; give --kernel, --qemu or a core"
    })
    : Effect.void

const listed = <A>(part: ReadonlyArray<A> | Reason): ReadonlyArray<A> => "kind" in part ? [] : part

const reasonOf = (part: ReadonlyArray<unknown> | Reason): ReadonlyArray<Reason> => "kind" in part ? [part] : []

/** The queues with an id, or of a kind; all where nothing is wanted. */
const matching = (
  queues: SchedSnapshot["dispatchQueues"],
  wanted: string | undefined
): ReadonlyArray<DispatchQueue> => {
  if (wanted === undefined) return listed(queues)
  const id = /^0x[0-9a-f]{1,16}$/i.test(wanted) ? String(BigInt(wanted)) : wanted
  return listed(queues).filter(({ id: own, kind }) => kind === wanted || (kind === "user" && String(own) === id))
}
