import * as Schema from "effect/Schema"
import { absent, type Reason, ReasonKind } from "../core/Reason.ts"
import { queueName } from "../sched/Findings.ts"
import type { RunQueueBase } from "../sched/RunQueues.ts"
import { Finding, QueueKind } from "../sched/SchedDocument.ts"
import type { SchedSnapshot } from "../sched/SchedState.ts"
import type { DispatchQueueBase } from "../sched/scx/DispatchQueues.ts"
import type { ScxBase } from "../sched/scx/ScxState.ts"

/**
 * A task that waits for a CPU: how long it has been runnable, and of which CPU's run queue it is.
 *
 * @since 0.1.0
 * @category schemas
 */
export const OldestTask = Schema.Struct({
  pid: Schema.Int,
  comm: Schema.String,
  millis: Schema.Number,
  cpu: Schema.Int
}).annotations({ identifier: "OldestTask" })
/**
 * The type that the Schema `OldestTask` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type OldestTask = typeof OldestTask.Type

/**
 * A part of a sample, at which a rule can look. `events`: a scheduler's counters; `oldest`: the task that has been runnable for longest.
 *
 * @since 0.1.0
 * @category schemas
 */
export const SamplePart = Schema.Literal("cpus", "scheduler", "queues", "events", "oldest", "tasks").annotations({
  identifier: "SamplePart"
})
/**
 * The type that the Schema `SamplePart` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type SamplePart = typeof SamplePart.Type

/**
 * Why a part of a sample is missing, or may be incomplete.
 *
 * @since 0.1.0
 * @category schemas
 */
export const SampleProblem = Schema.Struct({ part: SamplePart, kind: ReasonKind, text: Schema.String }).annotations({
  identifier: "SampleProblem"
})
/**
 * The type that the Schema `SampleProblem` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type SampleProblem = typeof SampleProblem.Type

/**
 * The parts of a scheduler's state that a sample is made of; `oldest` is `oldestRunnable`'s.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sampled extends Pick<SchedSnapshot, "time" | "findings"> {
  readonly runQueues: ReadonlyArray<RunQueueBase> | Reason
  readonly dispatchQueues: ReadonlyArray<DispatchQueueBase> | Reason
  readonly scx: ScxBase | Reason
  readonly oldest: OldestTask | null
  readonly problems: ReadonlyArray<SampleProblem>
  /** CPU time that the host has given each vCPU, by number, in nanoseconds; missing where it is not known. */
  readonly vcpuNanos?: ReadonlyArray<number | undefined>
}

const perSecond = (what: string) =>
  Schema.NullOr(Schema.Number).annotations({ description: `${what}; null in the first sample` })

/** A number that samples in older dumps do not have. */
const later = (description: string) =>
  Schema.optionalWith(Schema.NullOr(Schema.Number).annotations({ description }), { default: () => null })

/**
 * One reading against the one before: `…PerSecond` is null in the first, and where a new scheduler began to count.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Sample = Schema.Struct({
  at: Schema.String.annotations({ description: "wall-clock time of the host, ISO 8601" }),
  consistency: Schema.Literal("frozen", "racing").annotations({
    description: "whether the guest stood still for it; `racing`: values of one sample may be of different instants"
  }),
  seconds: Schema.NullOr(Schema.Number).annotations({ description: "guest time since the reading before, by jiffies" }),
  standsMillis: later("CPU time that the host gave one of the guest's CPUs since jiffies moved last; null: not known"),
  scheduler: Schema.NullOr(Schema.String),
  watchdogMillis: Schema.NullOr(Schema.Number).annotations({
    description: "how long a task may be runnable before the kernel ends the scheduler"
  }),
  cpus: Schema.Array(Schema.Struct({
    cpu: Schema.Int,
    online: Schema.Boolean,
    nr_running: Schema.Number,
    clockMillis: Schema.NullOr(Schema.Number).annotations({ description: "milliseconds that its clock moved on" }),
    runs: Schema.String,
    switchesPerSecond: perSecond("context switches"),
    vcpuMillis: later(
      "CPU time that the host gave it since the reading before; of all CPUs where they take turns in one "
        + "thread; null in the first sample, and where it is not known"
    )
  })),
  queues: Schema.Array(Schema.Struct({
    name: Schema.String,
    kind: QueueKind,
    nr: Schema.Number,
    change: Schema.NullOr(Schema.Number)
  })),
  oldest: Schema.NullOr(OldestTask).annotations({
    description: "the task of sched_ext that has been runnable for longest without running; null: none waits"
  }),
  eventsPerSecond: Schema.NullOr(Schema.Record({ key: Schema.String, value: Schema.Number })),
  findings: Schema.Array(Finding),
  problems: Schema.Array(SampleProblem).annotations({
    description:
      "parts that are missing or may be incomplete: a rule that looks at one passes on nothing that it does not see"
  })
}).annotations({ identifier: "Sample" })
/**
 * The type that the Schema `Sample` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Sample = typeof Sample.Type

/** A part that is missing is told by a problem. */
const listed = <A>(part: ReadonlyArray<A> | Reason): ReadonlyArray<A> => "kind" in part ? [] : part

const rootOf = ({ scx }: Sampled) => "kind" in scx ? undefined : scx.schedulers.find(({ root }) => root)

/**
 * A reading as a sample, with what changed since `before`.
 * @param moved the first reading that has the same jiffies; this one where they have just moved
 *
 * @since 0.1.0
 * @category constructors
 */
export const sampleOf = (
  sched: Sampled,
  before: Sampled | undefined,
  consistency: Sample["consistency"] = "frozen",
  moved: Sampled | undefined = undefined
): Sample => {
  const { hz, jiffies } = sched.time
  const ticks = before === undefined || hz === null ? 0 : Number(BigInt(jiffies) - BigInt(before.time.jiffies))
  const seconds = hz !== null && ticks > 0 ? ticks / hz : null
  const rate = (now: number, then: number | undefined): number | null =>
    seconds === null || then === undefined ? null : Math.round((now - then) / seconds)
  const root = rootOf(sched)
  const rootBefore = before === undefined ? undefined : rootOf(before)
  const events = root === undefined || "kind" in root.events ? undefined : root.events.total
  const eventsBefore = rootBefore === undefined || rootBefore.address !== root?.address || "kind" in rootBefore.events
    ? undefined
    : rootBefore.events.total
  const queues = listed(sched.dispatchQueues)
  const queuesBefore = new Map(
    before === undefined
      ? []
      : listed(before.dispatchQueues).map(({ address, nr }) => [address, Number(nr)])
  )
  const cpusBefore = new Map(
    before === undefined ? [] : listed(before.runQueues).map((queue) => [queue.cpu, queue])
  )
  return {
    at: new Date().toISOString(),
    consistency,
    seconds,
    standsMillis: moved === undefined ? null : longest(sched, moved),
    scheduler: root?.name ?? null,
    watchdogMillis: root?.watchdogMillis ?? null,
    cpus: listed(sched.runQueues).map(({ clock, cpu, curr, nr_running, nr_switches, online }) => {
      const then = cpusBefore.get(cpu)
      return {
        cpu,
        online,
        nr_running: Number(nr_running ?? 0),
        clockMillis: clock === undefined || then?.clock === undefined
          ? null
          : Math.round((Number(clock) - Number(then.clock)) / 1e6),
        runs: curr === undefined || curr.class === "idle" ? "idle" : `${curr.comm}[${curr.pid}]`,
        switchesPerSecond: rate(
          Number(nr_switches ?? 0),
          then?.nr_switches === undefined ? undefined : Number(then.nr_switches)
        ),
        vcpuMillis: vcpuMillis(sched, before, cpu)
      }
    }),
    queues: queues.filter(({ kind, nr }) => kind === "user" || nr !== 0).map((queue) => {
      const then = queuesBefore.get(queue.address)
      return {
        name: queueName(queue).replace(/^the /, ""),
        kind: queue.kind,
        nr: Number(queue.nr),
        change: then === undefined ? null : Number(queue.nr) - then
      }
    }),
    oldest: sched.oldest,
    eventsPerSecond: events === undefined || eventsBefore === undefined || seconds === null
      ? null
      : Object.fromEntries(
        Object.entries(events).flatMap(([event, count]) => {
          const by = rate(Number(count), Number(eventsBefore[event] ?? 0))
          return by === null || by === 0 ? [] : [[event, by]]
        })
      ),
    findings: sched.findings,
    problems: [...sched.problems, ...problemsOf(sched)]
  }
}

/** CPU time that the host gave a vCPU between two readings. */
const vcpuMillis = (now: Sampled, then: Sampled | undefined, cpu: number): number | null => {
  const [end, start] = [now.vcpuNanos?.[cpu], then?.vcpuNanos?.[cpu]]
  return end === undefined || start === undefined ? null : Math.round((end - start) / 1e6)
}

/** CPU time that the host gave the vCPU to which it gave most. */
const longest = (now: Sampled, then: Sampled): number | null => {
  const times = (now.vcpuNanos ?? []).flatMap((_, cpu) => vcpuMillis(now, then, cpu) ?? [])
  return times.length === 0 ? null : Math.max(...times)
}

/** Numbers that this kernel does not have: without them a sample has zeros, or nothing. */
const problemsOf = (sched: Sampled): ReadonlyArray<SampleProblem> => {
  const events = rootOf(sched)?.events
  const uncounted = listed(sched.runQueues).find(({ nr_running, online }) => online && nr_running === undefined)
  return [
    ...(events === undefined || !("kind" in events) ? [] : [{ part: "events" as const, ...events }]),
    ...(uncounted === undefined ? [] : [{ part: "cpus" as const, ...absent("rq.nr_running: this kernel lacks it") }]),
    ...(sched.time.hz === null
      ? [{ part: "events" as const, ...absent("CONFIG_HZ: this kernel does not tell it") }]
      : [])
  ]
}
