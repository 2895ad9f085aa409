import { absent, type Reason } from "../core/Reason.ts"
import { queueName } from "../sched/Findings.ts"
import type { SchedSnapshot } from "../sched/SchedState.ts"
import type { DispatchQueue } from "../sched/scx/DispatchQueues.ts"
import type { ScxBase } from "../sched/scx/ScxState.ts"

/**
 * A task that waits for a CPU: how long it has been runnable, and of which CPU's run queue it is.
 *
 * @since 0.1.0
 * @category models
 */
export interface OldestTask {
  readonly pid: number
  readonly comm: string
  readonly millis: number
  readonly cpu: number
}

/**
 * A part of a sample, at which a rule can look. `events`: a scheduler's counters; `oldest`: the task that has been runnable for longest.
 *
 * @since 0.1.0
 * @category models
 */
export type SamplePart = "cpus" | "scheduler" | "queues" | "events" | "oldest" | "tasks"

/**
 * Why a part of a sample is missing, or may be incomplete.
 *
 * @since 0.1.0
 * @category models
 */
export interface SampleProblem extends Reason {
  readonly part: SamplePart
}

/**
 * The parts of a scheduler's state that a sample is made of; `oldest` is `oldestRunnable`'s.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sampled extends Pick<SchedSnapshot, "time" | "runQueues" | "dispatchQueues" | "findings"> {
  readonly scx: ScxBase | Reason
  readonly oldest: OldestTask | null
  readonly problems: ReadonlyArray<SampleProblem>
}

/**
 * One reading against the one before: `…PerSecond` is null in the first, and where a new scheduler began to count.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sample {
  /** Wall-clock time of the host, ISO 8601. */
  readonly at: string
  /** Whether the guest stood still for it; `racing`: values of one sample may be of different instants. */
  readonly consistency: "frozen" | "racing"
  /** Guest time since the reading before, by jiffies. */
  readonly seconds: number | null
  readonly scheduler: string | null
  /** How long a task may be runnable before the kernel ends the scheduler. */
  readonly watchdogMillis: number | null
  readonly cpus: ReadonlyArray<{
    readonly cpu: number
    readonly online: boolean
    readonly nr_running: number
    /** Milliseconds that its clock moved on. */
    readonly clockMillis: number | null
    readonly runs: string
    readonly switchesPerSecond: number | null
  }>
  readonly queues: ReadonlyArray<{
    readonly name: string
    readonly kind: DispatchQueue["kind"]
    readonly nr: number
    readonly change: number | null
  }>
  /** The task of sched_ext that has been runnable for longest without running; null: none waits. */
  readonly oldest: OldestTask | null
  readonly eventsPerSecond: { readonly [event: string]: number } | null
  readonly findings: SchedSnapshot["findings"]
  /** Parts that are missing or may be incomplete: a rule that looks at one passes on nothing that it does not see. */
  readonly problems: ReadonlyArray<SampleProblem>
}

/** A part that is missing is told by a problem. */
const listed = <A>(part: ReadonlyArray<A> | Reason): ReadonlyArray<A> => "kind" in part ? [] : part

const rootOf = ({ scx }: Sampled) => "kind" in scx ? undefined : scx.schedulers.find(({ root }) => root)

/**
 * A reading as a sample, with what changed since `before`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const sampleOf = (
  sched: Sampled,
  before: Sampled | undefined,
  consistency: Sample["consistency"] = "frozen"
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
        )
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
