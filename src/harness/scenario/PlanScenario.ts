import * as Either from "effect/Either"
import type { Topology } from "../../kvm/spec/Topology.ts"
import type { Plan, PlanOp, PlanWorker } from "../agent/Plan.ts"
import type { OpCode } from "../agent/Protocol.ts"
import type { GuestLimits } from "./GuestLimits.ts"
import { nanosOf } from "./GuestTime.ts"
import { cpuList, resolveCpus } from "./ResolveCpus.ts"
import type { CgroupDef, CpuSpec, Op, Scenario } from "./Scenario.ts"
import { workersOf } from "./ValidateScenario.ts"
import { togetherOf, workParameters, workTypeEntry } from "./WorkTypes.ts"

/**
 * A scheduler as a plan has it.
 *
 * @since 0.1.0
 * @category models
 */
export interface PlannedScheduler {
  /** Its program in the guest, and its arguments. */
  readonly words: ReadonlyArray<string>
  /** The beginning of its name in sysfs. */
  readonly ops: string
  /** How long it is waited for, in nanoseconds of the guest. */
  readonly attachNs: number
}

/**
 * A plan, and which workers are whose: the agent knows numbers alone.
 *
 * @since 0.1.0
 * @category models
 */
export interface PlannedScenario {
  readonly plan: Plan
  readonly groups: ReadonlyArray<{ readonly name: string; readonly first: number; readonly count: number }>
  readonly payloads: ReadonlyArray<{ readonly name: string; readonly command: number }>
  readonly steps: ReadonlyArray<string>
}

/** The name of a payload's program in the guest's /bin; `readScheduler` sees to it that no scheduler's is its directory's. */
export const payloadProgram = (payload: string): string => `payload/${payload}`

/** include/uapi/linux/sched.h, v6.12 */
const POLICIES = { other: 0, fifo: 1, rr: 2, batch: 3, idle: 5, ext: 7 } as const

const policyOf = (policy: CgroupDef["policy"]): readonly [policy: number, priority: number] =>
  policy === undefined
    ? [POLICIES.other, 0]
    : typeof policy === "string"
    ? [POLICIES[policy], 0]
    : "fifo" in policy
    ? [POLICIES.fifo, policy.fifo]
    : [POLICIES.rr, policy.rr]

/** A policy as its operation has it: the class, and from bit 8 on the priority. */
const policyWord = (given: CgroupDef["policy"]): number => {
  const [policy, priority] = policyOf(given)
  return policy | (priority << 8)
}

/** Of a validated scenario, whose CPUs are there. */
const cpusOf = (spec: CpuSpec, topology: Topology): string => cpuList(Either.getOrThrow(resolveCpus(spec, topology)))

const quotaOf = (time: string, period = "100 millis"): string =>
  `${Math.round(nanosOf(time) / 1000)} ${Math.round(nanosOf(period) / 1000)}`

/** The workers of a group; `first` is the number of the first one. */
const workersIn = (
  name: string,
  def: CgroupDef,
  group: number,
  first: number,
  topology: Topology
): ReadonlyArray<PlanWorker> => {
  const { work } = def
  if (work === undefined) return []
  const together = togetherOf(work)
  const [policy, priority] = policyOf(def.policy)
  return Array.from({ length: workersOf(def, topology) }, (_, index) => ({
    type: workTypeEntry(work).number,
    group,
    comm: name.slice(0, 15),
    cpus: def.affinity === undefined ? undefined : cpusOf(def.affinity, topology),
    nice: def.nice ?? 0,
    policy,
    priority,
    leader: first + Math.floor(index / together) * together,
    size: together,
    params: workParameters(work)
  }))
}

/** The scenario's groups, with the numbers of their workers, and all workers. */
const groupsOf = (scenario: Scenario, topology: Topology) => {
  const workers: Array<PlanWorker> = []
  const groups = Object.entries(scenario.groups).map(([name, def], index) => {
    const first = workers.length
    workers.push(...workersIn(name, def, index, first, topology))
    return { name, def, index, first, count: workers.length - first }
  })
  return { groups, workers }
}

/** The scenario's payloads, with the numbers of their commands from `first` on. */
const payloadsOf = (scenario: Scenario, first: number) => {
  const groups = Object.keys(scenario.groups)
  return Object.entries(scenario.payloads ?? {}).map(([name, { args = [], group }], index) => ({
    name,
    group: group === undefined ? undefined : groups.indexOf(group),
    words: [`/bin/${payloadProgram(name)}`, ...args],
    command: first + index
  }))
}

/** The programs of a plan, in the order of their numbers. */
const commandsOf = (scheduler: PlannedScheduler | undefined, payloads: ReturnType<typeof payloadsOf>) => [
  ...(scheduler === undefined ? [] : [{ words: scheduler.words, ops: scheduler.ops, group: undefined }]),
  ...payloads.map(({ group, words }) => ({ words, ops: undefined, group }))
]

/** Operations that wait for work of the guest's, and for how long. */
const LIMITED: Partial<Record<OpCode, keyof GuestLimits>> = {
  spawn: "workers",
  stop: "workers",
  detach: "detach",
  kill: "kill"
}

const limitOf = (code: OpCode, limits: GuestLimits): Pick<PlanOp, "ns"> => {
  const limit = LIMITED[code]
  return limit === undefined ? {} : { ns: limits[limit] }
}

/** The plan of a scenario that `validateScenario` has passed: nothing in it is left for the guest to choose. */
export const planScenario = (
  scenario: Scenario,
  topology: Topology,
  scheduler: PlannedScheduler | undefined,
  seed: number,
  limits: GuestLimits
): PlannedScenario => {
  const { groups, workers } = groupsOf(scenario, topology)
  const byName = new Map(groups.map((group) => [group.name, group]))
  const ops: Array<PlanOp> = []
  const groupOf = (name: string) => byName.get(name)!
  const payloads = payloadsOf(scenario, scheduler === undefined ? 0 : 1)
  const commandOf = (name: string) => payloads.find((one) => one.name === name)!.command

  const inStep = (step: number) => {
    const put = (code: OpCode, rest: Omit<PlanOp, "code" | "step">) =>
      ops.push({ code, step, ...rest, ...limitOf(code, limits) })
    const write = (name: string, file: string, value: string) =>
      put("cgroupWrite", { a: groupOf(name).index, b: file, c: value })
    const onWorkers = (code: OpCode, name: string, rest: Pick<PlanOp, "c"> = {}) => {
      const { count, first } = groupOf(name)
      if (count > 0) put(code, { a: first, b: count, ...rest })
    }
    const create = (name: string) => {
      const { def, index } = groupOf(name)
      put("cgroupAdd", { a: index })
      if (def.cpus !== undefined) write(name, "cpuset.cpus", cpusOf(def.cpus, topology))
      if (def.weight !== undefined) write(name, "cpu.weight", String(def.weight))
      if (def.quota !== undefined) write(name, "cpu.max", quotaOf(def.quota.time, def.quota.period))
    }
    const attach = () => put("attach", { a: 0, ns: scheduler?.attachNs ?? 0 })
    const detach = () => put("detach", { a: 0 })
    return { put, write, onWorkers, create, attach, detach }
  }
  type Writer = ReturnType<typeof inStep>
  const perform = ({ attach, create, detach, onWorkers, put, write }: Writer, op: Op): void => {
    switch (op.op) {
      case "add":
        create(op.group)
        return onWorkers("spawn", op.group)
      case "remove":
        onWorkers("stop", op.group)
        return void put("cgroupRemove", { a: groupOf(op.group).index })
      case "stop":
        return onWorkers("stop", op.group)
      case "freeze":
      case "thaw":
        return void write(op.group, "cgroup.freeze", op.op === "freeze" ? "1" : "0")
      case "clearCpus":
        return void write(op.group, "cpuset.cpus", "\n")
      case "setCpus":
        return void write(op.group, "cpuset.cpus", cpusOf(op.cpus, topology))
      case "setAffinity":
        return onWorkers("affinity", op.group, { c: cpusOf(op.cpus, topology) })
      case "setWeight":
        return void write(op.group, "cpu.weight", String(op.weight))
      case "setQuota":
        return void write(op.group, "cpu.max", quotaOf(op.time, op.period))
      case "setNice":
        return onWorkers("nice", op.group, { c: op.nice })
      case "setPolicy":
        return onWorkers("policy", op.group, { c: policyWord(op.policy) })
      case "run":
      case "kill":
        return void put(op.op, { a: commandOf(op.payload) })
      case "wait":
        return void put("wait", { a: commandOf(op.payload), ns: nanosOf(op.within) })
      case "move":
        return onWorkers("move", op.group, { c: groupOf(op.to).index })
      case "attach":
        return void attach()
      case "detach":
        return void detach()
      case "restart":
        detach()
        return void attach()
    }
  }

  const start = inStep(0)
  const first = groups.filter(({ def }) => def.starts !== "later")
  first.forEach(({ name }) => start.create(name))
  if (scheduler !== undefined) start.attach()
  first.forEach(({ name }) => start.onWorkers("spawn", name))
  scenario.steps.forEach((step, index) => {
    const writer = inStep(index + 1)
    step.do?.forEach((op) => perform(writer, op))
    writer.put("phaseBegin", { a: index })
    writer.put("hold", { ns: nanosOf(step.hold) })
    writer.put("phaseEnd", { a: index })
  })
  const commands = commandsOf(scheduler, payloads)
  return {
    plan: { seed, callNs: limits.call, groups: groups.map(({ name }) => name), workers, commands, ops },
    groups: groups.map(({ count, first: at, name }) => ({ name, first: at, count })),
    payloads: payloads.map(({ command, name }) => ({ name, command })),
    steps: scenario.steps.map(({ name }) => name)
  }
}
