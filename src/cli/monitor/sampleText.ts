import { plural } from "../../core/Plural.ts"
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

/** Past samples and the columns of a terminal, on which their runnable tasks are drawn beside the sample's own. */
export interface Drawn {
  readonly past: ReadonlyArray<Sample>
  readonly columns: number
}

/** A sample for people. */
export const sampleText = (sample: Sample, verdicts: ReadonlyArray<RuleVerdict>, drawn?: Drawn): string => {
  const { at, eventsPerSecond, findings, oldest, problems, queues, scheduler } = sample
  const events = Object.entries(eventsPerSecond ?? {}).map(([event, by]) => `${event.replace(/^SCX_EV_/, "")} ${by}/s`)
  const head = `${bold(at.slice(11, 19))} ${scheduler === null ? "no sched_ext scheduler" : escapeLine(scheduler)}`
  return [
    `${head}${events.length === 0 ? "" : dim(` · ${escapeLine(events.join(" · "))}`)}\n`,
    cpusText(sample, drawn),
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

const CHART_HEAD = "RUNNABLE SO FAR"

/** The CPUs, with charts as long as the terminal has room for. */
const cpusText = (sample: Sample, { columns, past }: Drawn = { columns: 0, past: [] }): string => {
  const text = (charts?: ReadonlyMap<number, string>) =>
    table(
      ["CPU", "RUNNABLE", "SWITCHES/s", "RUNS", ...(charts === undefined ? [] : [CHART_HEAD])],
      sample.cpus.map(({ cpu, nr_running, runs, switchesPerSecond }) => [
        String(cpu),
        String(nr_running),
        String(switchesPerSecond ?? ""),
        escapeLine(runs),
        ...(charts === undefined ? [] : [charts.get(cpu) ?? ""])
      ]),
      [0, 1, 2]
    )
  const plain = text()
  const room = columns - 2 - plain.split("\n").reduce((most, { length }) => Math.max(most, length), 0)
  return past.length === 0 || room < CHART_HEAD.length ? plain : text(chartsOf([...past, sample].slice(-room)))
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
  const held = verdicts.length - failed.length - open.length
  return [
    ...failed.map(({ at, rule, threshold, unit, worst }) =>
      `${red(`rule ${rule} broken`)} at ${at?.slice(11, 19)}: at worst ${
        short(worst ?? 0)
      } ${unit}, allowed ${threshold}\n`
    ),
    dim(
      `${plural(held, "rule")} ${held === 1 ? "holds" : "hold"}${
        open.length === 0 ? "" : `; not judged: ${open.join(", ")}`
      }\n`
    )
  ].join("")
}

const short = (value: number): string => value.toLocaleString("en", { maximumFractionDigits: 1, useGrouping: false })
