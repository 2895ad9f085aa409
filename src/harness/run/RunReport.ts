import { escapeText } from "../../core/EscapeText.ts"
import type { RunRecord } from "../claim/RunRecord.ts"
import type { Detail } from "../claim/Verdict.ts"

const WORDS = { pass: "PASS", fail: "FAIL", inconclusive: "INCONCLUSIVE", skip: "SKIP" } as const
/** Details that a report shows; the rest is in the record. */
const MOST_DETAILS = 12
const MOST_LINES = 8

const seconds = (ns: number): string => `${(ns / 1e9).toFixed(3)} s`

const detailLine = ({ label, observed, outcome, wanted }: Detail): string => {
  const mark = outcome === "pass" ? "ok  " : outcome === "fail" ? "FAIL" : outcome === "skip" ? "skip" : "?   "
  const seen = observed === null ? "" : `: ${observed}`
  return `  ${mark}  ${label}${seen}${wanted === null ? "" : `, wanted ${wanted}`}`
}

/** A share of the CPUs' time, in per cent of one CPU. */
const share = (cpu: number | null, from: number, to: number): string =>
  cpu === null || to <= from ? "?" : `${(cpu / (to - from) * 100).toFixed(1)} %`

/** Groups by phase: units, CPU, the longest gap. */
const groupLines = (run: RunRecord): ReadonlyArray<string> =>
  run.phases.flatMap((phase) =>
    Object.entries(phase.groups).filter(([, { workers }]) => workers.length > 0).map((
      [group, { cpu, gap, migrations, units, workers }]
    ) =>
      `  ${phase.name}: ${group} (${workers.length} workers) ${units} units, CPU ${
        share(cpu, phase.from, phase.to)
      }, longest gap ${(gap.max / 1e6).toFixed(2)} ms, ${migrations} migrations`
    )
  )

const schedulerLine = ({ kernel, machine, scheduler }: RunRecord): string => {
  const on = `kernel ${kernel.release} · ${machine.cpus} CPUs, ${machine.llcs} LLCs`
  if (scheduler === null) return `  the kernel's own scheduler · ${on}`
  const attach = scheduler.attach === null ? "not attached" : `attached in ${seconds(scheduler.attach)}`
  return `  scheduler ${[scheduler.name, ...scheduler.arguments].join(" ")}: ${attach} · ${on}`
}

/** The command that runs a kept run again, exactly. */
export const replayCommand = ({ host }: RunRecord): string | undefined =>
  host.directory === null ? undefined : `ktstr replay ${host.directory}`

/**
 * A run on one screen: its outcome, what was judged, the worst first, what the groups did, and how to run it again. Text of
 * the guest in it is escaped.
 *
 * @since 0.1.0
 * @category rendering
 */
export const runReport = (run: RunRecord): string => {
  const { details, outcome } = run.verdict
  const shown = details.slice(0, MOST_DETAILS)
  const log = outcome === "fail" ? (run.scheduler?.log ?? []).slice(-MOST_LINES) : []
  const again = replayCommand(run)
  return [
    `${WORDS[outcome]}  ${run.test} [${run.mode.mode}, seed ${run.seed}] ${seconds(run.end.at)} of the guest`,
    ...shown.map(detailLine),
    ...(details.length > shown.length ? [`  ${details.length - shown.length} more in the record`] : []),
    schedulerLine(run),
    ...groupLines(run),
    ...(log.length === 0 ? [] : ["  the scheduler last printed:", ...log.map((line) => `    ${line}`)]),
    ...(run.host.dump === null ? [] : [`  the guest as it failed: ktstr show ${run.host.dump}`]),
    ...(again === undefined ? [] : [`  again: ${again}`])
  ].map(escapeText).join("\n")
}
