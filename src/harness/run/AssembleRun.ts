import { type LogLine, microsOf } from "../../host/KernelLog.ts"
import { parseScxExits } from "../../host/ScxExit.ts"
import { bucketFloor, type LiveCounters } from "../agent/Mailbox.ts"
import type { AgentRecord, WorkerCounters } from "../agent/Records.ts"
import type { Phase, RunRecord, SchedulerRun, Work } from "../claim/RunRecord.ts"
import type { PlannedScenario } from "../scenario/PlanScenario.ts"
import { cpuList } from "../scenario/ResolveCpus.ts"
import { failedOperations } from "./FailedOperations.ts"

type OfKind<K extends AgentRecord["kind"]> = Extract<AgentRecord, { readonly kind: K }>
const ofKind = <K extends AgentRecord["kind"]>(records: ReadonlyArray<AgentRecord>, kind: K) =>
  records.filter((record): record is OfKind<K> => record.kind === kind)

const cpusOf = (mask: bigint): string =>
  cpuList(Array.from({ length: 64 }, (_, cpu) => cpu).filter((cpu) => ((mask >> BigInt(cpu)) & 1n) === 1n))

/** A worker's work from `before` on; one that was not there yet began with zeros. */
const workOf = (before: WorkerCounters | undefined, after: WorkerCounters): Work => ({
  units: after.units - (before?.units ?? 0),
  cpu: after.cpuNs === undefined ? null : after.cpuNs - (before?.cpuNs ?? 0),
  wait: after.runDelayNs - (before?.runDelayNs ?? 0),
  runs: after.runs - (before?.runs ?? 0),
  gap: { max: after.gapMaxNs, at: after.gapAtNs, cpu: after.gapCpu },
  migrations: after.migrations - (before?.migrations ?? 0),
  cpus: cpusOf(after.cpusUsed)
})

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, each) => total + each, 0)

const NO_WORK: Work = {
  units: 0,
  cpu: 0,
  wait: 0,
  runs: 0,
  migrations: 0,
  cpus: "",
  gap: { max: 0, at: 0, cpu: 0 }
}

/** All of a group: sums, and the longest gap. */
const together = (works: ReadonlyArray<Work & { readonly worker: number }>, masks: bigint): Work => ({
  units: sum(works.map(({ units }) => units)),
  cpu: works.some(({ cpu }) => cpu === null) ? null : sum(works.map(({ cpu }) => cpu ?? 0)),
  wait: sum(works.map(({ wait }) => wait)),
  runs: sum(works.map(({ runs }) => runs)),
  gap: works.reduce((longest, { gap }) => gap.max > longest.max ? gap : longest, NO_WORK.gap),
  migrations: sum(works.map(({ migrations }) => migrations)),
  cpus: cpusOf(masks)
})

/** The phases that began, with what each group did in them. */
const phasesOf = (records: ReadonlyArray<AgentRecord>, planned: PlannedScenario): ReadonlyArray<Phase> => {
  const marks = ofKind(records, "phase")
  const counters = ofKind(records, "worker").map((record) => record.counters)
  const usages = ofKind(records, "group")
  return planned.steps.flatMap((name, step) => {
    const begin = marks.find((mark) => mark.step === step && !mark.end)
    if (begin === undefined) return []
    const end = marks.find((mark) => mark.step === step && mark.end)
    const groups = planned.groups.map(({ count, first, name: group }, index) => {
      const mine = counters.filter((one) => one.step === step && one.worker >= first && one.worker < first + count)
      const before = new Map(mine.filter((one) => !one.end).map((one) => [one.worker, one]))
      const after = [...new Map(mine.filter((one) => one.end).map((one) => [one.worker, one])).values()]
      const workers = after.map((one) => ({ worker: one.worker, ...workOf(before.get(one.worker), one) }))
      const usage = usages.filter((one) => one.group === index && one.step === step)
      const [from, to] = [false, true].map((ended) => usage.find((one) => one.end === ended)?.usageMicros)
      const cpuStat = from === undefined || to === undefined ? null : (to - from) * 1000
      const masks = after.reduce((all, { cpusUsed }) => all | cpusUsed, 0n)
      return [group, { ...together(workers, masks), cpuStat, workers }] as const
    })
    return [{
      name,
      from: begin.atNs,
      to: end?.atNs ?? begin.atNs,
      complete: end !== undefined,
      groups: Object.fromEntries(groups)
    }]
  })
}

/** The value that a share of all events is at most at: a bucket's least value. */
const quantile = (buckets: Float64Array, count: number, share: number): number | null => {
  if (count === 0) return null
  let seen = 0
  for (let bucket = 0; bucket < buckets.length; bucket++) {
    seen += buckets[bucket]
    if (seen >= share * count) return bucketFloor(bucket)
  }
  return null
}

/** The latencies of each group over the whole run: the histograms of its workers added up. */
const latenciesOf = (
  planned: PlannedScenario,
  live: ReadonlyArray<LiveCounters>,
  maxima: ReadonlyMap<number, number>
): RunRecord["latencies"] =>
  Object.fromEntries(planned.groups.map(({ count, first, name }) => {
    const buckets = new Float64Array(960)
    for (const one of live.slice(first, first + count)) one.buckets.forEach((n, bucket) => (buckets[bucket] += n))
    const events = sum(Array.from(buckets))
    const workers = Array.from({ length: count }, (_, index) => maxima.get(first + index) ?? 0)
    return [name, {
      count: events,
      p50: quantile(buckets, events, 0.5),
      p99: quantile(buckets, events, 0.99),
      max: events === 0 ? null : Math.max(0, ...workers)
    }]
  }))

/** `level,sequence,microseconds,flags;text` of /dev/kmsg. */
const KMSG = /^(\d+),\d+,(\d+),[^;]*;(.*)$/s
/** KERN_WARNING and what is graver: include/linux/kern_levels.h, v6.12. */
const WARNING = 4

interface KernelLine extends LogLine {
  readonly level: number
}

const kernelLines = (records: ReadonlyArray<AgentRecord>): ReadonlyArray<KernelLine> =>
  ofKind(records, "line").flatMap(({ source, text }) => {
    const [, priority, micros, message] = source === "kernel" ? KMSG.exec(text) ?? [] : []
    if (message === undefined) return []
    const unescaped = message.replaceAll(
      /\\x([0-9a-f]{2})/g,
      (_, hex: string) => String.fromCharCode(parseInt(hex, 16))
    )
    return [{ level: Number(priority) & 7, atMicros: microsOf(Number(micros)), text: unescaped }]
  })

const MOST_LINES = 200
/** include/uapi/asm-generic/errno-base.h: no such process; it has ended before. */
const ESRCH = 3
/** Room for what the verifier says of a program that it refuses. */
const MOST_SCHEDULER_LINES = 5000

/**
 * A scheduler as it was given, before it ran.
 *
 * @since 0.1.0
 * @category models
 */
export type GivenScheduler = Pick<
  SchedulerRun,
  "name" | "path" | "sha256" | "arguments" | "ops" | "expected" | "attachLimit"
>

const FAILURES = ["died", "left", "late", "noSchedExt", "other"] as const
const isFailure = (what: string): what is typeof FAILURES[number] => FAILURES.some((failure) => failure === what)

const schedulerRun = (given: GivenScheduler, records: ReadonlyArray<AgentRecord>): SchedulerRun => {
  const states = ofKind(records, "scheduler")
  const started = states.find(({ what }) => what === "started")
  const attached = states.find(({ what }) => what === "attached")
  const failed = states.map(({ what }) => what).find(isFailure)
  const atEnd = states.findLast(({ what }) => what === "atEnd")
  const ended = ofKind(records, "commandEnded").findLast(({ command }) => command === 0)
  const again = states.findLast(({ what }) => what === "started")?.atNs ?? 0
  const gone = states.find(({ what }) => what === "gone")
  const last = states.findLast(({ what }) => what === "attached")
  return {
    ...given,
    attach: started === undefined || attached === undefined ? null : attached.atNs - started.atNs,
    attached: failed ?? (attached === undefined ? "never" : "yes"),
    switchAll: attached?.switchAll ?? null,
    cpu: last?.cpuNs === undefined || atEnd?.cpuNs === undefined ? null : atEnd.cpuNs - last.cpuNs,
    gone: gone === undefined || attached === undefined ? null : gone.atNs - attached.atNs,
    atEnd: atEnd === undefined ? null : atEnd.enabled && atEnd.ops.startsWith(given.ops),
    status: ended !== undefined && ended.atNs >= again ? ended.status : null,
    exits: parseScxExits(kernelLines(records)),
    log: ofKind(records, "line").filter(({ command, source }) => source === "command" && command === 0).map((
      { text }
    ) => text).slice(
      -MOST_SCHEDULER_LINES
    )
  }
}

const payloadsOf = (
  records: ReadonlyArray<AgentRecord>,
  { payloads, plan: { ops } }: PlannedScenario
): RunRecord["payloads"] =>
  Object.fromEntries(payloads.map(({ command, name }) => [name, {
    status: ofKind(records, "commandEnded").findLast((one) => one.command === command)?.status ?? null,
    killed: ofKind(records, "op").some(({ error, op }) =>
      ops[op]?.code === "kill" && ops[op].a === command && error !== ESRCH
    ),
    log: ofKind(records, "line").filter((one) => one.source === "command" && one.command === command)
      .map(({ text }) => text).slice(-MOST_SCHEDULER_LINES)
  }]))

/** Workers that ended unasked. Why one did not even begin is told by its spawn. */
const lostWorkers = (
  records: ReadonlyArray<AgentRecord>,
  { groups, plan: { ops } }: PlannedScenario
): RunRecord["lostWorkers"] => {
  let current = 0
  return records.flatMap((record) => {
    if (record.kind === "op") current = record.op + 1
    if (record.kind !== "workerEnded") return []
    const { atNs: at, status, worker } = record
    const last = ops.findLastIndex(({ a, b, code }, index) =>
      index <= current && (code === "spawn" || code === "stop") && worker >= Number(a) && worker < Number(a) + Number(b)
    )
    const group = groups.find(({ count, first }) => worker >= first && worker < first + count)?.name
    if (group === undefined || ops[last]?.code !== "spawn" || last === current) return []
    return [{ worker, group, at, status }]
  })
}

/** The part of a run's record that the agent tells. */
export type ToldByAgent = Pick<
  RunRecord,
  "scheduler" | "payloads" | "phases" | "latencies" | "operations" | "lostWorkers" | "kernelLog"
>

/** A run's numbers from what the agent wrote and what stands in its pages. */
export const assembleRun = (
  records: ReadonlyArray<AgentRecord>,
  live: ReadonlyArray<LiveCounters>,
  planned: PlannedScenario,
  scheduler: GivenScheduler | undefined
): ToldByAgent => {
  const maxima = new Map(ofKind(records, "worker").map(({ counters }) => [counters.worker, counters.eventMaxNs]))
  return {
    scheduler: scheduler === undefined ? null : schedulerRun(scheduler, records),
    payloads: payloadsOf(records, planned),
    phases: phasesOf(records, planned),
    latencies: latenciesOf(planned, live, maxima),
    operations: failedOperations(records, planned),
    lostWorkers: lostWorkers(records, planned),
    kernelLog: kernelLines(records)
      .filter(({ level, text }) => level <= WARNING || text.startsWith("sched_ext:"))
      .map(({ text }) => text).slice(0, MOST_LINES)
  }
}
