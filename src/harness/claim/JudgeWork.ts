import type { CgroupDef, Op } from "../scenario/Scenario.ts"
import { sleepOf } from "../scenario/WorkTypes.ts"
import { statusText } from "./JudgeScheduler.ts"
import type { RunRecord } from "./RunRecord.ts"
import { type Detail, detail } from "./Verdict.ts"

/** Every worker ends a unit in every phase, unless it is frozen or stopped. */
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

/** The groups of which something holds in each step: at first, and as each operation leaves it. */
const groupsInSteps = (
  { scenario }: RunRecord,
  atFirst: (def: CgroupDef) => boolean,
  perform: (op: Op, groups: Set<string>) => void
): ReadonlyArray<ReadonlySet<string>> => {
  const groups = new Set(Object.entries(scenario.groups).flatMap(([name, def]) => atFirst(def) ? [name] : []))
  return scenario.steps.map((step) => {
    for (const op of step.do ?? []) perform(op, groups)
    return new Set(groups)
  })
}

/** The groups that are frozen or stopped in each step. */
const restingGroups = (run: RunRecord): ReadonlyArray<ReadonlySet<string>> =>
  groupsInSteps(run, () => false, (op, resting) => {
    if (op.op === "freeze" || op.op === "stop") resting.add(op.group)
    if (op.op === "thaw" || op.op === "add") resting.delete(op.group)
    if (op.op === "move" && resting.has(op.to)) resting.add(op.group)
  })

/** The groups that others may keep from a CPU for long, in each step: the scenario asks for it. */
const patientGroups = (run: RunRecord): ReadonlyArray<ReadonlySet<string>> => {
  const isLow = ({ nice, policy, quota, weight }: CgroupDef): boolean =>
    policy === "idle" || (nice ?? 0) > 0 || quota !== undefined || weight !== undefined
  return groupsInSteps(run, isLow, (op, patient) => {
    if (op.op === "setQuota" || op.op === "setWeight" || op.op === "setNice" || op.op === "setPolicy") {
      patient.add(op.group)
    }
    if (op.op === "move" && patient.has(op.to)) patient.add(op.group)
  })
}

/** Whether a worker has a real-time class at any time: it may keep all others from a CPU. */
const hasRealTime = ({ scenario }: RunRecord): boolean =>
  Object.values(scenario.groups).some(({ policy }) => typeof policy === "object") ||
  scenario.steps.some((step) => step.do?.some((op) => op.op === "setPolicy" && typeof op.policy === "object"))

/** The shortest gap that is a stall, in a phase however short; and with many workers, for each that shares a CPU. */
const LEAST_STALL = 1e9
const EACH_STALL = 100e6

/** A worker that ended no unit for most of a phase, though it did before or after. */
const stalled = (run: RunRecord): ReadonlyArray<Detail> => {
  if (hasRealTime(run) || run.mode.mode === "emulated" || run.mode.mode === "exact-coarse") return []
  const [resting, patient] = [restingGroups(run), patientGroups(run)]
  for (const [index, phase] of run.phases.entries()) {
    const workers = Object.values(phase.groups).reduce((sum, group) => sum + group.workers.length, 0)
    const most = Math.max(LEAST_STALL, (phase.to - phase.from) / 2, workers / run.machine.cpus * EACH_STALL)
    for (const [name, { work }] of Object.entries(run.scenario.groups)) {
      if (resting[index].has(name) || patient[index].has(name) || work === undefined) continue
      const longest = most + sleepOf(work)
      const one = phase.groups[name]?.workers.find(({ gap }) => gap.max > longest)
      if (one !== undefined) {
        return [detail(
          "progress",
          "fail",
          "no worker stood still",
          `worker ${one.worker} of ${name} in ${phase.name}, for ${(one.gap.max / 1e9).toFixed(3)} s`,
          `at most ${(longest / 1e9).toFixed(3)} s`
        )]
      }
    }
  }
  return [detail("progress", "pass", "no worker stood still")]
}

/** Work that never sleeps. */
const ALWAYS_RUNNABLE: ReadonlyArray<string> = ["spin", "yield", "mixed"]
/** Operations after which a group's workers may not be able to use every CPU. */
const NARROWING: ReadonlyArray<string> = [
  "setCpus",
  "setAffinity",
  "setQuota",
  "setPolicy",
  "freeze",
  "stop",
  "remove",
  "move"
]

/** The number of workers that are always runnable and may run on every CPU, in each step. */
const freeWorkers = (run: RunRecord): ReadonlyArray<number> => {
  const isFree = ({ affinity, cpus, policy, quota, work }: CgroupDef): boolean =>
    work !== undefined && ALWAYS_RUNNABLE.includes(work.type) && affinity === undefined && cpus === undefined &&
    quota === undefined && typeof policy !== "object" && policy !== "idle"
  return groupsInSteps(run, isFree, (op, free) => {
    if ("group" in op && NARROWING.includes(op.op)) free.delete(op.group)
    if (op.op === "move") free.delete(op.to)
  }).map((free, index) => {
    const groups = run.phases.at(index)?.groups ?? {}
    return [...free].reduce((sum, name) => sum + (groups[name]?.workers.length ?? 0), 0)
  })
}

/** The CPUs of a list, as in 0-3,7. */
const cpusIn = (list: string): ReadonlyArray<number> =>
  list.split(",").filter((part) => part !== "").flatMap((part) => {
    const [from, to = from] = part.split("-").map(Number)
    return Array.from({ length: to - from + 1 }, (_, index) => from + index)
  })

/** The most CPUs that a worker's mask tells apart. */
const MOST_CPUS = 64
/** The shortest phase in which workers must have spread over the CPUs: a scheduler may balance them now and then. */
const TIME_TO_SPREAD = 250e6

/** Where there is always work for every CPU, every CPU does some. */
const everyCpu = (run: RunRecord): ReadonlyArray<Detail> => {
  const free = freeWorkers(run)
  const { cpus } = run.machine
  const busy = run.phases.filter(({ complete, from, to }, index) =>
    complete && to - from >= TIME_TO_SPREAD && free[index] >= cpus
  )
  if (busy.length === 0 || cpus > MOST_CPUS) return []
  const label = "every CPU ran a worker"
  for (const { groups, name } of busy) {
    const used = new Set(Object.values(groups).flatMap((group) => cpusIn(group.cpus)))
    const idle = Array.from({ length: cpus }, (_, cpu) => cpu).filter((cpu) => !used.has(cpu))
    if (idle.length > 0) {
      const observed = `not CPU ${idle.join(", ")} until the end of ${name}, with a runnable worker for each`
      return [detail("idle CPU", "fail", label, observed)]
    }
  }
  return [detail("idle CPU", "pass", label)]
}

/** Workers that something else than the scenario ended: what they did is not measured. */
const lost = ({ lostWorkers: [first, ...others] }: RunRecord): ReadonlyArray<Detail> => {
  if (first === undefined) return []
  const { at, group, status, worker } = first
  const how = `worker ${worker} of ${group} ended with ${statusText(status)} at ${(at / 1e9).toFixed(3)} s`
  const more = others.length === 0 ? "" : ` and ${others.length} more`
  return [detail("progress", "fail", "no worker ended before it was stopped", how + more)]
}

/** The claims of the workers of every run: each lives and makes progress, and no CPU is left without work. */
export const judgeWork = (run: RunRecord): ReadonlyArray<Detail> => [
  ...lost(run),
  ...progress(run),
  ...stalled(run),
  ...everyCpu(run)
]
