import { judgeClaim } from "./JudgeClaims.ts"
import { judgeScheduler, lastOf, statusText } from "./JudgeScheduler.ts"
import { judgeWork } from "./JudgeWork.ts"
import type { RunRecord } from "./RunRecord.ts"
import { type Detail, detail, type Verdict, verdictOf } from "./Verdict.ts"

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
    case "starved":
      return detail("agent starved", "fail", "the agent, a task of FIFO 99, had no CPU", end.why)
    case "time limit":
      return detail("time limit", "fail", "the guest did not come to its end in time", end.why)
  }
}

/** Payloads that ended: with status 0, unless the scenario ended them. */
const payloads = (run: RunRecord): ReadonlyArray<Detail> =>
  Object.entries(run.payloads).flatMap(([name, { killed, log, status }]) =>
    status === null || killed
      ? []
      : [detail(
        "payload",
        status === 0 ? "pass" : "fail",
        `${name} ended with status 0`,
        status === 0 ? null : `with ${statusText(status)}, and last said: ${lastOf(log)}`
      )]
  )

/** Lines that a kernel without trouble does not write. */
const ALARMING =
  /^(?:WARNING: |BUG: |Oops|general protection|kernel BUG|INFO: task .* blocked|rcu: INFO: .* stall|watchdog: BUG|unable to handle|Out of memory: Killed)/

/** A verdict over a run: what is claimed of every run, and the run's own claims. */
export const judgeRun = (run: RunRecord): Verdict => {
  const details: Array<Detail> = []
  const ended = ending(run)
  if (ended !== undefined) details.push(ended)
  const ofScheduler = run.scheduler === null ? [] : judgeScheduler(run, run.scheduler)
  if (ofScheduler.some(({ outcome }) => outcome === "skip")) return { outcome: "skip", details: ofScheduler }
  details.push(...ofScheduler)
  const started = run.scheduler === null || (run.scheduler.attached === "yes" && run.scheduler.expected === null)
  if (started) details.push(...judgeWork(run))
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
  for (const { error, what, why } of run.operations) {
    // an attach that failed is told with the scheduler
    if (started || !what.startsWith("attach")) {
      details.push(detail("operation", "fail", what, why === null ? error : `${error}: ${why}`))
    }
  }
  details.push(...payloads(run))
  for (const claim of run.claims) details.push(judgeClaim(run, claim))
  return verdictOf(details)
}
