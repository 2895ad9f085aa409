import { judgeClaim } from "./JudgeClaims.ts"
import type { RunRecord, SchedulerRun } from "./RunRecord.ts"
import { type Detail, type Verdict, verdictOf } from "./Verdict.ts"

const detail = (
  kind: Detail["kind"],
  outcome: Detail["outcome"],
  label: string,
  observed: string | null = null,
  wanted: string | null = null
): Detail => ({ kind, outcome, label, observed, wanted })

/** Words of the verifier, or of libbpf, about a program that is refused. */
const REFUSED = /BPF program load failed|prog '.*': failed to load|verifier|BPF_PROG_LOAD/i

/** `status 1` or `signal 11` of a wait(2) status. */
export const statusText = (status: number): string =>
  (status & 0x7f) === 0 ? `status ${(status >> 8) & 0xff}` : `signal ${status & 0x7f}`

const lastOf = (lines: ReadonlyArray<string>): string => lines.findLast((line) => line.trim() !== "") ?? "nothing"

/** A scheduler that did not attach. */
const notAttached = (scheduler: SchedulerRun): Detail | undefined => {
  const { log, name, status } = scheduler
  switch (scheduler.attached) {
    case "yes":
      return undefined
    case "died": {
      const refused = log.some((line) => REFUSED.test(line))
      const how = status === null ? "ended" : `ended with ${statusText(status)}`
      return detail(
        refused ? "scheduler refused" : "scheduler died",
        "fail",
        refused ? `the kernel refused ${name}` : `${name} died before it attached`,
        `${how}, and last said: ${lastOf(log)}`
      )
    }
    case "noSchedExt":
      return detail("scheduler late", "skip", "the kernel has no sched_ext", null, "a kernel with SCHED_CLASS_EXT")
    case "other":
      return detail("scheduler other", "fail", `another scheduler than ${scheduler.ops} is attached`)
    case "late":
      return detail("scheduler late", "fail", `${name} did not attach in time`, `it last said: ${lastOf(log)}`, "30 s")
    case "never":
      return detail("scheduler late", "inconclusive", `${name} was never started`)
  }
}

/** A scheduler that was attached, and is not any more or came to trouble. */
const trouble = (scheduler: SchedulerRun): ReadonlyArray<Detail> => {
  const bad = scheduler.exits.filter(({ kind }) => kind !== "normal")
  if (bad.length > 0) {
    return bad.map(({ kind, message, reason, stalled }) =>
      detail(
        kind === "stall" ? "scheduler stalled" : "scheduler error",
        "fail",
        stalled === null
          ? `${scheduler.name} was thrown out: ${reason}`
          : `${scheduler.name} did not run ${stalled.comm}[${stalled.pid}] for ${stalled.millis / 1000} s`,
        message
      )
    )
  }
  if (scheduler.atEnd === true) return [detail("scheduler exited", "pass", `${scheduler.name} was attached at the end`)]
  return [detail(
    "scheduler exited",
    scheduler.atEnd === null ? "inconclusive" : "fail",
    scheduler.atEnd === null ? `whether ${scheduler.name} was attached at the end` : `${scheduler.name} left by itself`,
    scheduler.status === null ? "its process runs" : `its process ended with ${statusText(scheduler.status)}`,
    "attached at the end"
  )]
}

/** How the guest ended, where it did not come to the plan's end. */
const ending = ({ end }: RunRecord): Detail | undefined => {
  switch (end.how) {
    case "done":
      return undefined
    case "panicked":
      return detail("guest panicked", "fail", "the guest's kernel panicked", end.why)
    case "refused":
      return detail("guest ended", "fail", "the agent refused its plan", end.why)
    case "ended":
      return detail("guest ended", "fail", "the guest ended before its plan did", end.why)
    case "time limit":
      return detail("time limit", "fail", "the guest did not come to its end in time", end.why)
  }
}

/** Every worker comes to the end of a unit in every phase: only one that is frozen or stopped may not. */
const progress = (run: RunRecord): ReadonlyArray<Detail> => {
  const resting = restingGroups(run)
  const idle = run.phases.flatMap((phase, index) =>
    Object.entries(phase.groups).flatMap(([group, { workers }]) =>
      resting[index].has(group)
        ? []
        : workers.filter(({ units }) => units === 0).map(({ worker }) => ({ phase: phase.name, group, worker }))
    )
  )
  const all = run.phases.reduce(
    (sum, { groups }) => sum + Object.values(groups).reduce((count, { workers }) => count + workers.length, 0),
    0
  )
  if (all === 0) return [detail("progress", "inconclusive", "every worker progressed", "no worker was measured")]
  if (idle.length === 0) return [detail("progress", "pass", "every worker progressed")]
  const named = idle.slice(0, 5).map(({ group, phase, worker }) => `worker ${worker} of ${group} in ${phase}`).join(
    ", "
  )
  const more = idle.length > 5 ? ` and ${idle.length - 5} more` : ""
  return [detail("progress", "fail", "every worker progressed", `no unit of ${named}${more}`, "at least 1 unit each")]
}

/** The groups that rest in each step, by the scenario. */
const restingGroups = ({ scenario }: RunRecord): ReadonlyArray<ReadonlySet<string>> => {
  const resting = new Set<string>()
  return scenario.steps.map((step) => {
    for (const op of step.do ?? []) {
      if (op.op === "freeze" || op.op === "stop") resting.add(op.group)
      if (op.op === "thaw" || op.op === "add") resting.delete(op.group)
    }
    return new Set(resting)
  })
}

/** Lines that a kernel without trouble does not write. */
const ALARMING =
  /^(?:WARNING: |BUG: |Oops|general protection|kernel BUG|INFO: task .* blocked|rcu: INFO: .* stall|watchdog: BUG|unable to handle)/

/** A verdict over a run: what is claimed of every run, and the run's own claims. */
export const judgeRun = (run: RunRecord): Verdict => {
  const details: Array<Detail> = []
  const missing = run.scheduler === null ? undefined : notAttached(run.scheduler)
  const ended = ending(run)
  if (ended !== undefined) details.push(ended)
  if (missing !== undefined) details.push(missing)
  if (missing !== undefined && missing.outcome === "skip") return { outcome: "skip", details: [missing] }
  if (run.scheduler !== null && missing === undefined) details.push(...trouble(run.scheduler))
  if (missing === undefined) details.push(...progress(run))
  const alarm = run.kernelLog.find((line) => ALARMING.test(line))
  details.push(
    alarm === undefined
      ? detail("kernel", "pass", "the kernel's log has no alarm")
      : detail("kernel", "fail", "the kernel's log has no alarm", alarm)
  )
  details.push(
    run.damage === null
      ? detail("records", "pass", "no record is missing")
      : detail("records", "inconclusive", "no record is missing", run.damage)
  )
  for (const { error, what } of run.operations) {
    if (!what.startsWith("attach")) details.push(detail("operation", "fail", what, error))
  }
  for (const claim of run.claims) details.push(judgeClaim(run, claim))
  return verdictOf(details)
}
