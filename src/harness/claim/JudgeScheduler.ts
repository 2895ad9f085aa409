import type { ExpectedEnd } from "./ExpectedEnd.ts"
import type { RunRecord, SchedulerRun } from "./RunRecord.ts"
import { type Detail, detail } from "./Verdict.ts"

/** Words of the verifier, or of libbpf, about a program that is refused. */
const REFUSED = /BPF program load failed|prog '[^']*': failed to load|verifier|BPF_PROG_LOAD/i
/**
 * The line of the verifier's log behind the one that says why: its last, or the first of the explanation that it gives since v7.3,
 * kernel/bpf/diagnostics.c.
 */
const VERIFIER_END = /^(?:processed \d+ insns|Verification failed: )/

/** `status 1` or `signal 11` of a wait(2) status. */
export const statusText = (status: number): string =>
  (status & 0x7f) === 0 ? `status ${(status >> 8) & 0xff}` : `signal ${status & 0x7f}`

const seconds = (ns: number): string => `${(ns / 1e9).toFixed(1)} s`

/** The last line that says something. */
export const lastOf = (lines: ReadonlyArray<string>): string =>
  lines.findLast((line) => line.trim() !== "") ?? "nothing"

/** The verifier's reason to refuse a program. */
const reasonOf = (lines: ReadonlyArray<string>): string | undefined => {
  const end = lines.findIndex((line) => VERIFIER_END.test(line))
  return end > 0 ? lines[end - 1] : undefined
}

/** How a scheduler's process ended, or that it did not. */
const processOf = (status: number | null): string =>
  status === null ? "its process runs" : `its process ended with ${statusText(status)}`

const died = ({ log, name, status }: SchedulerRun): Detail => {
  const how = status === null ? "ended" : `ended with ${statusText(status)}`
  if (!log.some((line) => REFUSED.test(line))) {
    return detail(
      "scheduler died",
      "fail",
      `${name} died before it attached`,
      `${how}, and last said: ${lastOf(log)}`
    )
  }
  const reason = reasonOf(log)
  return detail(
    "scheduler refused",
    "fail",
    `the kernel refused ${name}`,
    reason === undefined ? `${how}, and last said: ${lastOf(log)}` : `the verifier says: ${reason}`
  )
}

/** A scheduler that did not attach. */
const notAttached = (scheduler: SchedulerRun): Detail | undefined => {
  const { attachLimit, log, name, ops, status } = scheduler
  switch (scheduler.attached) {
    case "yes":
      return undefined
    case "died":
      return died(scheduler)
    case "left":
      return detail(
        "scheduler exited",
        "fail",
        `${name} left its scheduler behind`,
        `${processOf(status)} while ${ops} is attached`,
        "a process that stays as long as its scheduler"
      )
    case "noSchedExt":
      return detail("scheduler late", "skip", "the kernel has no sched_ext", null, "a kernel with SCHED_CLASS_EXT")
    case "other":
      return detail("scheduler other", "fail", `another scheduler than ${ops} is attached`)
    case "late":
      return detail(
        "scheduler late",
        "fail",
        `${name} did not attach in time`,
        `it last said: ${lastOf(log)}`,
        `at most ${seconds(attachLimit)}, or a larger attachWithin`
      )
    case "never":
      return detail("scheduler late", "inconclusive", `${name} was never started`)
  }
}

/** Whether the scenario itself takes the scheduler away at its end. */
const detachesAtEnd = ({ scenario }: RunRecord): boolean =>
  scenario.steps.flatMap((step) => step.do ?? [])
    .findLast(({ op }) => op === "attach" || op === "detach" || op === "restart")?.op === "detach"

/** The kernel's words for ends without an error that neither the scheduler nor its process asked for; `scx_exit_reason`, v6.12 to v7.3. */
const TAKEN_AWAY: ReadonlyArray<string> = ["unregistered from the main kernel", "disabled by sysrq-S"]

/** A scheduler that attached, at the end. */
const atEnd = (run: RunRecord, { atEnd: stands, exits, gone, name, status }: SchedulerRun): Detail => {
  const process = processOf(status)
  if (gone !== null) {
    const reason = exits.map((exit) => exit.reason).find((words) => TAKEN_AWAY.includes(words))
    return detail(
      "scheduler exited",
      "fail",
      reason === undefined ? `${name} left by itself` : `${name} was taken away: ${reason}`,
      `${seconds(gone)} after it attached; ${process}`,
      "attached until the end"
    )
  }
  if (stands === null) {
    return detail("scheduler exited", "inconclusive", `whether ${name} was attached at the end`, process)
  }
  if (detachesAtEnd(run)) {
    return detail("scheduler exited", stands ? "fail" : "pass", `${name} was detached at the end`, null)
  }
  if (stands && status !== null) {
    return detail("scheduler exited", "fail", `${name} left its scheduler behind`, process, "a process that stays")
  }
  return stands
    ? detail("scheduler exited", "pass", `${name} was attached at the end`)
    : detail("scheduler exited", "fail", `${name} left by itself`, process, "attached until the end")
}

/** Whether a worker of the scenario asks for SCHED_EXT. */
const asksForExt = ({ scenario }: RunRecord): boolean =>
  Object.values(scenario.groups).some(({ policy }) => policy === "ext")

/** The share of one CPU that a scheduler's own process may use. */
const MOST_OWN_CPU = 0.5

/** The rest of the conduct of a scheduler that attached: whether it came late, took the workers, and left them the CPUs. */
const conduct = (run: RunRecord, scheduler: SchedulerRun): ReadonlyArray<Detail> => {
  const { attach, attachLimit, cpu, name, switchAll } = scheduler
  const details: Array<Detail> = []
  if (attach !== null && attach > attachLimit) {
    details.push(detail(
      "scheduler late",
      "inconclusive",
      `${name} did not attach in time`,
      `it took ${seconds(attach)}, which means nothing in mode ${run.mode.mode}`,
      `at most ${seconds(attachLimit)}`
    ))
  }
  if (switchAll === false && !asksForExt(run)) {
    details.push(detail(
      "scheduler partial",
      "fail",
      `${name} has none of the workers`,
      "it takes tasks of SCHED_EXT alone (SCX_OPS_SWITCH_PARTIAL)",
      "all tasks, or a group with policy ext"
    ))
  }
  const last = run.phases.at(-1)
  const first = run.phases.at(0)
  if (cpu !== null && first !== undefined && last !== undefined && last.to > first.from) {
    const used = cpu / (last.to - first.from)
    if (used > MOST_OWN_CPU) {
      details.push(detail(
        "scheduler busy",
        "fail",
        `${name}'s own process leaves the CPUs to others`,
        `it used ${Math.round(used * 100)} % of a CPU`,
        `at most ${MOST_OWN_CPU * 100} %`
      ))
    }
  }
  return details
}

/** How the kernel threw a scheduler out. */
const thrownOut = (scheduler: SchedulerRun): ReadonlyArray<Detail> =>
  scheduler.exits.filter(({ kind }) => kind !== "normal").map(({ kind, message, reason, stalled }) =>
    detail(
      kind === "stall" ? "scheduler stalled" : "scheduler error",
      "fail",
      stalled === null
        ? `${scheduler.name} was thrown out: ${reason}`
        : `${scheduler.name} did not run ${stalled.comm}[${stalled.pid}] for ${stalled.millis / 1000} s`,
      message
    )
  )

/** The claims of every scheduler: it attaches in time, with a process that stays, and is not thrown out. */
const conductOf = (run: RunRecord, scheduler: SchedulerRun): ReadonlyArray<Detail> => {
  const missing = notAttached(scheduler)
  const bad = thrownOut(scheduler)
  if (missing !== undefined) return missing.kind === "scheduler late" ? [...bad, missing] : [missing]
  const others = conduct(run, scheduler)
  return bad.length === 0 ? [atEnd(run, scheduler), ...others] : [...bad, ...others]
}

/** A scheduler that must end: it did so, or it did something else. */
const endsAs = (expected: ExpectedEnd, { name }: SchedulerRun, told: ReadonlyArray<Detail>): ReadonlyArray<Detail> => {
  const kind = `scheduler ${expected}` as const
  const found = told.find((one) => one.kind === kind && one.outcome === "fail")
  if (found !== undefined) return [{ ...found, outcome: "pass", wanted: "this end" }]
  const instead = told.filter(({ outcome }) => outcome !== "pass").map(({ kind, label }) => `${kind}: ${label}`)
  const observed = instead.length === 0 ? "it stayed" : instead.join("; ")
  return [detail(kind, "fail", `${name} ends as the test says`, observed, kind)]
}

/** The claims of a scheduler: those of every one, or the end that the test expects of it. */
export const judgeScheduler = (run: RunRecord, scheduler: SchedulerRun): ReadonlyArray<Detail> => {
  const told = conductOf(run, scheduler)
  const { expected } = scheduler
  return expected === null || told.some(({ outcome }) => outcome === "skip") ? told : endsAs(expected, scheduler, told)
}
