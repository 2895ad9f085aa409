import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { freezeAndAttach } from "../../Ktstr.ts"
import { queueName } from "../../sched/Findings.ts"
import { readSched, type SchedSnapshot } from "../../sched/index.ts"
import type { Target } from "../source/options.ts"
import { bootTarget, Live } from "../source/snapshot.ts"
import { bold, dim, red } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { UsageError } from "../terminal/exit.ts"
import { writeLive, writeScreen } from "../terminal/Output.ts"
import * as Stages from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"
import { restartTimeLimit } from "../terminal/timeLimit.ts"

/** One reading, against the one before: `…PerSecond` is null in the first, and where a new scheduler began to count. */
interface Sample {
  readonly at: string
  /** Guest time since the reading before, by jiffies. */
  readonly seconds: number | null
  readonly scheduler: string | null
  readonly cpus: ReadonlyArray<{
    readonly cpu: number
    readonly nr_running: number
    readonly runs: string
    readonly switchesPerSecond: number | null
  }>
  readonly queues: ReadonlyArray<{ readonly name: string; readonly nr: number; readonly change: number | null }>
  readonly eventsPerSecond: { readonly [event: string]: number } | null
  readonly findings: SchedSnapshot["findings"]
}

/** Boot a VM and read it again and again, frozen for each reading, until Ctrl-C. */
export const watch = (config: Target & { readonly every: Duration.Duration; readonly ndjson: boolean }) =>
  Effect.gen(function*() {
    if (Option.isNone(config.kernel) || config.live) {
      return yield* new UsageError({ problem: "say what to watch: --kernel ID boots a VM" })
    }
    const { name, vm } = yield* Effect.provide(bootTarget(config), Stages.layer)
    const reading = Effect.scoped(Effect.map(freezeAndAttach(vm, name), ({ kernel }) => readSched(kernel)))
    let before: SchedSnapshot | undefined
    const samples = Stream.map(Stream.repeatEffectWithSchedule(reading, Schedule.fixed(config.every)), (sched) => {
      const sample = sampleOf(sched, before)
      before = sched
      return sample
    })
    yield* Stream.runForEachWhile( // until nobody reads
      Stream.tap(samples, () => restartTimeLimit(Duration.toMillis(config.every))),
      (sample) =>
        config.ndjson
          ? writeLive(`${JSON.stringify({ record: "sample", ...sample })}\n`)
          : writeScreen(textOf(sample))
    )
  }).pipe(Effect.scoped, Effect.provide(Live))

const listed = <A>(part: ReadonlyArray<A> | object): ReadonlyArray<A> => Array.isArray(part) ? part : []

const rootOf = ({ scx }: SchedSnapshot) => "kind" in scx ? undefined : scx.schedulers.find(({ root }) => root)

const sampleOf = (sched: SchedSnapshot, before: SchedSnapshot | undefined): Sample => {
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
  const queuesBefore = new Map(
    before === undefined ? [] : listed<QueueOf>(before.dispatchQueues).map((queue) => [queue.address, Number(queue.nr)])
  )
  return {
    at: new Date().toISOString(),
    seconds,
    scheduler: root?.name ?? null,
    cpus: listed<CpuOf>(sched.runQueues).map(({ cpu, curr, nr_running, nr_switches }) => {
      const then = before === undefined
        ? undefined
        : listed<CpuOf>(before.runQueues).find((other) => other.cpu === cpu)?.nr_switches
      return {
        cpu,
        nr_running: Number(nr_running ?? 0),
        runs: curr === undefined || curr.class === "idle" ? "idle" : `${curr.comm}[${curr.pid}]`,
        switchesPerSecond: rate(Number(nr_switches ?? 0), then === undefined ? undefined : Number(then))
      }
    }),
    queues: listed<QueueOf>(sched.dispatchQueues).filter(({ kind, nr }) => kind === "user" || nr !== 0).map((queue) => {
      const then = queuesBefore.get(queue.address)
      return {
        name: queueName(queue).replace(/^the /, ""),
        nr: Number(queue.nr),
        change: then === undefined ? null : Number(queue.nr) - then
      }
    }),
    eventsPerSecond: events === undefined || eventsBefore === undefined || seconds === null
      ? null
      : Object.fromEntries(
        Object.entries(events).flatMap(([event, count]) => {
          const by = rate(Number(count), Number(eventsBefore[event] ?? 0))
          return by === null || by === 0 ? [] : [[event, by]]
        })
      ),
    findings: sched.findings
  }
}

type CpuOf = Extract<SchedSnapshot["runQueues"], ReadonlyArray<unknown>>[number]
type QueueOf = Extract<SchedSnapshot["dispatchQueues"], ReadonlyArray<unknown>>[number]

const textOf = ({ at, cpus, eventsPerSecond, findings, queues, scheduler }: Sample): string => {
  const events = Object.entries(eventsPerSecond ?? {}).map(([event, by]) => `${event.replace(/^SCX_EV_/, "")} ${by}/s`)
  const head = `${bold(at.slice(11, 19))} ${scheduler === null ? "no sched_ext scheduler" : escapeLine(scheduler)}`
  return [
    `${head}${events.length === 0 ? "" : dim(` · ${escapeLine(events.join(" · "))}`)}\n`,
    table(
      ["CPU", "RUNNABLE", "SWITCHES/s", "RUNS"],
      cpus.map(({ cpu, nr_running, runs, switchesPerSecond }) => [
        String(cpu),
        String(nr_running),
        String(switchesPerSecond ?? ""),
        escapeLine(runs)
      ]),
      [0, 1, 2]
    ),
    queues.length === 0 ? "" : table(
      ["QUEUE", "TASKS", "CHANGE"],
      queues.map((
        { change, name, nr }
      ) => [name, String(nr), change === null || change === 0 ? "" : `${change > 0 ? "+" : ""}${change}`]),
      [1, 2]
    ),
    ...findings.map(({ name, text }) => `${red(name)}  ${escapeLine(text)}\n`)
  ].join("")
}
