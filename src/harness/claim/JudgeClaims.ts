import { boundValue, type Claim, isTime, type Subject } from "./Claim.ts"
import type { RunRecord, Work } from "./RunRecord.ts"
import type { Detail } from "./Verdict.ts"

/** A number that was measured, or why there is none. */
type Reading = { readonly value: number } | { readonly absent: string }
const absent = (why: string): Reading => ({ absent: why })

/** A claim's name: its subject. */
export const labelOf = (subject: Subject): string =>
  "path" in subject
    ? subject.path.join(".")
    : "ratio" in subject
    ? `${labelOf(subject.ratio[0])} / ${labelOf(subject.ratio[1])}`
    : `${labelOf(subject.difference[0])} - ${labelOf(subject.difference[1])}`

const show = (value: number, time: boolean): string =>
  !time
    ? String(Math.round(value * 1000) / 1000)
    : value >= 1e9
    ? `${(value / 1e9).toFixed(3)} s`
    : value >= 1e6
    ? `${(value / 1e6).toFixed(3)} ms`
    : `${(value / 1e3).toFixed(1)} us`

const ofWork = (work: Work & { readonly cpuStat: number | null }, path: ReadonlyArray<string>): Reading => {
  const [name, part] = path
  if (name === "gap" && part === "max") return { value: work.gap.max }
  if (name === "units" || name === "migrations" || name === "runs" || name === "wait") return { value: work[name] }
  if (name === "cpu" || name === "cpuStat") {
    return work[name] === null ? absent("the kernel did not tell") : { value: work[name] }
  }
  return absent(`the record has no ${path.join(".")}`)
}

/** Over all phases: the sum, or the longest. */
const overPhases = (run: RunRecord, group: string, path: ReadonlyArray<string>): Reading => {
  const readings = run.phases.flatMap(({ groups }) => groups[group] === undefined ? [] : [ofWork(groups[group], path)])
  const missing = readings.find((reading) => "absent" in reading)
  if (missing !== undefined) return missing
  if (readings.length === 0) return absent(`the group ${group} was in no phase that was reached`)
  const values = readings.map((reading) => "value" in reading ? reading.value : 0)
  return { value: path[0] === "gap" ? Math.max(...values) : values.reduce((sum, value) => sum + value, 0) }
}

const atPath = (run: RunRecord, path: ReadonlyArray<string>): Reading => {
  const [where, name, ...rest] = path
  if (where === "scheduler") {
    if (run.scheduler === null) return absent("the test has no scheduler")
    if (name === "exits") return { value: run.scheduler.exits.filter(({ kind }) => kind !== "normal").length }
    const { attach } = run.scheduler
    return name === "attach" && attach !== null ? { value: attach } : absent("it did not attach")
  }
  if (where === "groups" && rest[0] === "latency") {
    const latencies = run.latencies[name]
    const value = latencies?.[rest[1] as "count" | "p50" | "p99" | "max"]
    return value === null || value === undefined ? absent("its work measures no latency") : { value }
  }
  if (where === "groups") return overPhases(run, name, rest)
  if (where === "phases" && rest[0] === "groups") {
    const phase = run.phases.find((one) => one.name === name)
    const group = phase?.complete === true ? phase.groups[rest[1]] : undefined
    return group === undefined ? absent(`the end of ${name} was not reached`) : ofWork(group, rest.slice(2))
  }
  return absent(`the record has no ${path.join(".")}`)
}

const read = (run: RunRecord, subject: Subject): Reading => {
  if ("path" in subject) return atPath(run, subject.path)
  const [a, b] = ("ratio" in subject ? subject.ratio : subject.difference).map((part) => read(run, part))
  if ("absent" in a) return a
  if ("absent" in b) return b
  if ("difference" in subject) return { value: a.value - b.value }
  return b.value === 0 ? absent(`${labelOf(subject.ratio[1])} is 0`) : { value: a.value / b.value }
}

const holds = ({ bounds, is }: Claim, value: number): boolean => {
  const [from, to] = bounds.map(boundValue)
  switch (is) {
    case "at least":
      return value >= from
    case "at most":
      return value <= from
    case "between":
      return value >= from && value <= to
    case "equal to":
      return value === from
  }
}

/**
 * A claim judged over a run. What was not measured is inconclusive, with its reason; so are times where the host's load
 * shows in them.
 */
export const judgeClaim = (run: RunRecord, claim: Claim): Detail => {
  const time = isTime(claim.subject)
  const reading = read(run, claim.subject)
  const wanted = `${claim.is} ${claim.bounds.join(" and ")}${claim.because === null ? "" : ` (${claim.because})`}`
  const made = (outcome: Detail["outcome"], observed: string): Detail => (
    { kind: "claim", outcome, label: labelOf(claim.subject), observed, wanted }
  )
  if ("absent" in reading) return made("inconclusive", reading.absent)
  const observed = show(reading.value, time)
  return time && (run.mode.mode === "emulated" || run.mode.mode === "exact-coarse")
    ? made("inconclusive", `${observed}, which means nothing in mode ${run.mode.mode}`)
    : made(holds(claim, reading.value) ? "pass" : "fail", observed)
}
