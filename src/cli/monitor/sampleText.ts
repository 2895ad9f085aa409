import { formatReason } from "../../core/Reason.ts"
import type { RuleVerdict } from "../../monitor/Rules.ts"
import type { Sample } from "../../monitor/Sample.ts"
import { bold, dim, red, yellow } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { duration } from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"

/** A record of `--ndjson`: a sample, and how all so far stand to the rules. */
export const sampleRecord = (sample: Sample, verdicts: ReadonlyArray<RuleVerdict>): string =>
  `${JSON.stringify({ record: "sample", ...sample, verdicts })}\n`

/** A sample for people. `past`: those before it, whose runnable tasks are drawn beside its own. */
export const sampleText = (
  sample: Sample,
  verdicts: ReadonlyArray<RuleVerdict>,
  past: ReadonlyArray<Sample> = []
): string => {
  const { at, cpus, eventsPerSecond, findings, oldest, problems, queues, scheduler } = sample
  const events = Object.entries(eventsPerSecond ?? {}).map(([event, by]) => `${event.replace(/^SCX_EV_/, "")} ${by}/s`)
  const head = `${bold(at.slice(11, 19))} ${scheduler === null ? "no sched_ext scheduler" : escapeLine(scheduler)}`
  const drawn = past.length > 0
  const charts = drawn ? chartsOf([...past, sample]) : new Map<number, string>()
  return [
    `${head}${events.length === 0 ? "" : dim(` · ${escapeLine(events.join(" · "))}`)}\n`,
    table(
      ["CPU", "RUNNABLE", "SWITCHES/s", "RUNS", ...(drawn ? ["RUNNABLE SO FAR"] : [])],
      cpus.map(({ cpu, nr_running, runs, switchesPerSecond }) => [
        String(cpu),
        String(nr_running),
        String(switchesPerSecond ?? ""),
        escapeLine(runs),
        ...(drawn ? [charts.get(cpu) ?? ""] : [])
      ]),
      [0, 1, 2]
    ),
    queues.length === 0 ? "" : table(
      ["QUEUE", "TASKS", "CHANGE"],
      queues.map(({ change, name, nr }) => [
        name,
        String(nr),
        change === null || change === 0 ? "" : `${change > 0 ? "+" : ""}${change}`
      ]),
      [1, 2]
    ),
    oldest === null
      ? ""
      : `waits longest: ${escapeLine(oldest.comm)}[${oldest.pid}] of CPU ${oldest.cpu}, ${duration(oldest.millis)}\n`,
    ...findings.map(({ name, text }) => `${red(name)}  ${escapeLine(text)}\n`),
    ...problems.map((problem) => yellow(`${problem.part} incomplete: ${escapeLine(formatReason(problem))}\n`)),
    verdictsText(verdicts)
  ].join("")
}

const BARS = "▁▂▃▄▅▆▇█"

/** A bar a sample of each CPU's runnable tasks; all CPUs have the same scale, so that they compare. */
const chartsOf = (samples: ReadonlyArray<Sample>): ReadonlyMap<number, string> => {
  const most = samples.reduce((most, { cpus }) => cpus.reduce((most, cpu) => Math.max(most, cpu.nr_running), most), 1)
  const charts = new Map<number, string>()
  for (const { cpus } of samples) {
    for (const { cpu, nr_running } of cpus) {
      const bar = nr_running === 0 ? " " : BARS[Math.ceil(nr_running / most * BARS.length) - 1]
      charts.set(cpu, (charts.get(cpu) ?? "") + bar)
    }
  }
  return charts
}

/** Rules that were broken, then those that have not been judged. */
const verdictsText = (verdicts: ReadonlyArray<RuleVerdict>): string => {
  const failed = verdicts.filter(({ outcome }) => outcome === "fail")
  const open = verdicts.filter(({ outcome }) => outcome === "inconclusive").map(({ rule }) => rule)
  return [
    ...failed.map(({ at, rule, threshold, unit, worst }) =>
      `${red(`rule ${rule} broken`)} at ${at?.slice(11, 19)}: at worst ${
        short(worst ?? 0)
      } ${unit}, allowed ${threshold}\n`
    ),
    dim(
      `${verdicts.length - failed.length - open.length} rules hold${
        open.length === 0 ? "" : `; not judged: ${open.join(", ")}`
      }\n`
    )
  ].join("")
}

const short = (value: number): string => value.toLocaleString("en", { maximumFractionDigits: 1, useGrouping: false })
