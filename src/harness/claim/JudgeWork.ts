import { sleepOf } from "../scenario/WorkTypes.ts"
import type { RunRecord } from "./RunRecord.ts"
import { type Detail, detail } from "./Verdict.ts"

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

/** Nobody waits longer than that, however short the phase is, and with many workers a CPU than that for each. */
const LEAST_STALL = 1e9
const EACH_STALL = 100e6

/** Groups that another one may keep from a CPU for long: the scenario says so. */
const mayWait = (def: RunRecord["scenario"]["groups"][string]): boolean =>
  def.policy === "idle" || (def.nice ?? 0) > 0 || def.quota !== undefined

/** A worker that came on, and then no more: it did not come to the end of a unit for most of a phase. */
const stalled = (run: RunRecord): ReadonlyArray<Detail> => {
  const groups = Object.entries(run.scenario.groups)
  const realTime = groups.some(([, { policy }]) => typeof policy === "object")
  if (realTime || run.mode.mode === "emulated" || run.mode.mode === "exact-coarse") return []
  const resting = restingGroups(run)
  for (const [index, phase] of run.phases.entries()) {
    const workers = Object.values(phase.groups).reduce((sum, group) => sum + group.workers.length, 0)
    const most = Math.max(LEAST_STALL, (phase.to - phase.from) / 2, workers / run.machine.cpus * EACH_STALL)
    for (const [name, def] of groups) {
      if (resting[index].has(name) || mayWait(def) || def.work === undefined) continue
      const longest = most + sleepOf(def.work)
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
/** Operations after which a group may not use every CPU. */
const NARROWING: ReadonlyArray<string> = ["setCpus", "setAffinity", "setQuota", "freeze", "stop", "remove", "move"]

/** How many workers are always runnable and may run everywhere, in each step. */
const freeWorkers = ({ phases, scenario }: RunRecord): ReadonlyArray<number> => {
  const free = new Set(
    Object.entries(scenario.groups).flatMap(([name, { affinity, cpus, policy, quota, work }]) =>
      work !== undefined && ALWAYS_RUNNABLE.includes(work.type) && affinity === undefined && cpus === undefined &&
        quota === undefined && typeof policy !== "object" && policy !== "idle"
        ? [name]
        : []
    )
  )
  return scenario.steps.map((step, index) => {
    for (const op of step.do ?? []) {
      if ("group" in op && NARROWING.includes(op.op)) free.delete(op.group)
      if (op.op === "move") free.delete(op.to)
    }
    const groups = phases.at(index)?.groups ?? {}
    return [...free].reduce((sum, name) => sum + (groups[name]?.workers.length ?? 0), 0)
  })
}

/** The CPUs of a list, as in 0-3,7. */
const cpusIn = (list: string): ReadonlyArray<number> =>
  list.split(",").filter((part) => part !== "").flatMap((part) => {
    const [from, to = from] = part.split("-").map(Number)
    return Array.from({ length: to - from + 1 }, (_, index) => from + index)
  })

/** Most CPUs that a worker's mask tells apart. */
const MOST_CPUS = 64

/** Where there is always work for every CPU, every CPU does some. */
const everyCpu = (run: RunRecord): ReadonlyArray<Detail> => {
  const free = freeWorkers(run)
  const { cpus } = run.machine
  const busy = run.phases.filter(({ complete }, index) => complete && free[index] >= cpus)
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

/** The claims of the workers of every run: each comes on, and no CPU is left without work. */
export const judgeWork = (run: RunRecord): ReadonlyArray<Detail> => [
  ...progress(run),
  ...stalled(run),
  ...everyCpu(run)
]
