import { type Reason, within } from "../core/Reason.ts"
import { queueName } from "./Findings.ts"
import type { RunQueue } from "./RunQueues.ts"
import type { SchedChange, SchedFieldChange } from "./SchedChange.ts"
import type { SchedSnapshot } from "./SchedState.ts"
import type { SchedTime } from "./SchedTime.ts"
import type { DispatchQueue } from "./scx/DispatchQueues.ts"
import type { QueuedTask } from "./scx/QueuedTasks.ts"
import { exitKindOf, type Scheduler, type ScxState } from "./scx/ScxState.ts"
import type { Int } from "./StructFields.ts"
import type { Task } from "./tasks/Tasks.ts"

type Value = SchedFieldChange["before"]
/** Fields of an object that are compared, by name; undefined where it does not have one. */
interface Compared {
  readonly states: { readonly [field: string]: Value | undefined }
  readonly counters: { readonly [field: string]: Int | undefined }
}

/**
 * Seconds of the guest's own time from one reading to another, by its jiffies; null where HZ is not known, or the second
 * is the earlier one.
 *
 * @since 0.1.0
 * @category comparing
 */
export const guestSeconds = (from: SchedTime, to: SchedTime): number | null => {
  const ticks = Number(BigInt(to.jiffies) - BigInt(from.jiffies))
  return from.hz === null || from.hz <= 0 || from.hz !== to.hz || ticks < 0 ? null : ticks / from.hz
}

/**
 * The changes from one reading of a kernel's scheduler to another of the same boot: sched_ext and its schedulers, CPUs,
 * dispatch queues, tasks, and what looks wrong. A part that a side does not have, though the other does, is a problem.
 *
 * @since 0.1.0
 * @category comparing
 */
export function* diffSched(from: SchedSnapshot, to: SchedSnapshot): Generator<SchedChange, void> {
  const seconds = guestSeconds(from.time, to.time)
  const scx = yield* both("sched_ext", from.scx, to.scx)
  if (scx !== undefined) yield* scxChanges(...scx, seconds)
  const cpus = yield* both("run queues", from.runQueues, to.runQueues)
  for (const [old, now] of pairs(cpus, ({ cpu }) => String(cpu))) {
    const fields = old === undefined || now === undefined ? [] : changedFields(cpuFields(old), cpuFields(now), seconds)
    if (now !== undefined && fields.length > 0) yield { change: "cpuChanged", cpu: now.cpu, fields }
  }
  const queues = yield* both("dispatch queues", from.dispatchQueues, to.dispatchQueues)
  for (const [old, now] of pairs(queues, ({ address, id, kind }) => `${kind} ${id} ${address}`)) {
    yield* queueChanges(old, now)
  }
  const tasks = yield* both("tasks", from.tasks, to.tasks)
  const [before, after] = [from, to].map(({ dispatchQueues }) => queueNames(dispatchQueues))
  for (const [old, now] of pairs(tasks, ({ pid, start_time }) => `${pid} ${start_time ?? ""}`)) {
    const task = now ?? old
    if (task === undefined) continue
    const who = { pid: task.pid, tgid: task.tgid, comm: task.comm, class: task.class }
    if (old === undefined || now === undefined) yield { change: old === undefined ? "taskAdded" : "taskEnded", ...who }
    else {
      const fields = changedFields(taskFields(old, before), taskFields(now, after), seconds)
      if (fields.length > 0) yield { change: "taskChanged", ...who, fields }
    }
  }
  const key = ({ address, cpu, name, pid }: SchedSnapshot["findings"][number]) =>
    JSON.stringify([name, cpu, pid, address])
  for (const [old, now] of pairs([from.findings, to.findings], key)) {
    if (old === undefined && now !== undefined) yield { change: "findingAppeared", name: now.name, text: now.text }
    if (now === undefined && old !== undefined) yield { change: "findingGone", name: old.name, text: old.text }
  }
  for (const [side, { problems }] of [["first", from], ["second", to]] as const) {
    for (const problem of problems) yield { change: "problem", problem: within(`the ${side}`, problem) }
  }
}

/** The part of both sides. Where only one lacks it, or memory could not be read, that is a problem. */
function* both<A extends object>(
  part: string,
  from: A | Reason,
  to: A | Reason
): Generator<SchedChange, readonly [A, A] | undefined> {
  const absent = [from, to].map((side) => isReason(side) && side.kind === "absent")
  for (const [name, side] of [["first", from], ["second", to]] as const) {
    if (isReason(side) && absent.includes(false)) {
      yield { change: "problem", problem: within(`${part} of the ${name}`, side) }
    }
  }
  return isReason(from) || isReason(to) ? undefined : [from, to]
}

const isReason = (part: object): part is Reason => "kind" in part

/** Each side's element by the same key, in the second side's order, then those that only the first has. */
function* pairs<A>(
  sides: readonly [ReadonlyArray<A>, ReadonlyArray<A>] | undefined,
  key: (each: A) => string
): Generator<readonly [A | undefined, A | undefined]> {
  if (sides === undefined) return
  const before = new Map(sides[0].map((each) => [key(each), each]))
  for (const now of sides[1]) {
    const name = key(now)
    yield [before.get(name), now]
    before.delete(name)
  }
  for (const old of before.values()) yield [old, undefined]
}

const changedFields = (from: Compared, to: Compared, seconds: number | null): ReadonlyArray<SchedFieldChange> => {
  const changes: Array<SchedFieldChange> = []
  for (const field of new Set([...Object.keys(from.states), ...Object.keys(to.states)])) {
    const [before = null, after = null] = [from.states[field], to.states[field]]
    if (before !== after) changes.push({ field, before, after, delta: null, rate: null })
  }
  for (const field of new Set([...Object.keys(from.counters), ...Object.keys(to.counters)])) {
    const [before, after] = [from, to].map(({ counters }) =>
      Object.hasOwn(counters, field) ? counters[field] ?? null : null
    )
    if (before === after) continue
    const delta = before === null || after === null ? null : Number(BigInt(after) - BigInt(before))
    const rate = delta === null || seconds === null || seconds === 0 ? null : delta / seconds
    changes.push({ field, before, after, delta, rate })
  }
  return changes
}

function* scxChanges(from: ScxState, to: ScxState, seconds: number | null): Generator<SchedChange> {
  const states = ({ aborting, bypass_depth, enabled, state, switched_all }: ScxState) => ({
    states: { state, enabled, switched_all, bypass_depth, aborting },
    counters: {}
  })
  const counters = ({ enable_seq, hotplug_seq, nr_rejected }: ScxState) => ({ enable_seq, hotplug_seq, nr_rejected })
  const fields = changedFields(
    { ...states(from), counters: counters(from) },
    { ...states(to), counters: counters(to) },
    seconds
  )
  if (fields.length > 0) yield { change: "scxChanged", fields }
  // the address of one that is gone may be another's: the root's is the same one only if none was enabled between
  const key = ({ enable_seq }: ScxState) => ({ address, name, root }: Scheduler) =>
    JSON.stringify([address, name, root ? enable_seq : null])
  const [before, after] = [from, to].map((side) => side.schedulers.map((one) => ({ one, key: key(side)(one) })))
  for (const [old, now] of pairs([before, after], ({ key }) => key)) {
    const scheduler = (now ?? old)?.one
    if (scheduler === undefined) continue
    const { address, name } = scheduler
    if (old === undefined || now === undefined) {
      yield { change: old === undefined ? "schedulerLoaded" : "schedulerGone", name, address }
    } else {
      const changed = changedFields(schedulerFields(old.one), schedulerFields(now.one), seconds)
      if (changed.length > 0) yield { change: "schedulerChanged", name, address, fields: changed }
    }
  }
}

const schedulerFields = (scheduler: Scheduler): Compared => {
  const { aborting, bypass_depth, events, exitInfo } = scheduler
  return {
    states: { exit_kind: exitKindOf(scheduler), exit_message: exitInfo?.message, bypass_depth, aborting },
    counters: isReason(events) ? {} : events.total
  }
}

const cpuFields = ({ cfs, curr, dl, nr_running, nr_switches, online, rt, scx, times }: RunQueue): Compared => ({
  states: {
    online,
    curr: curr === undefined ? undefined : `${curr.comm}[${curr.pid}]`,
    nr_running,
    fair: cfs?.h_nr_queued ?? cfs?.h_nr_running,
    rt: rt?.rt_nr_running,
    dl: dl?.dl_nr_running,
    ext: scx?.nr_running
  },
  counters: { nr_switches, irqs_sum: times?.irqs_sum, ...times?.cpustat }
})

const queueNames = (queues: SchedSnapshot["dispatchQueues"]): ReadonlyMap<string, string> =>
  new Map(isReason(queues) ? [] : queues.map((queue) => [queue.address, queueName(queue)]))

const taskFields = (task: Task, queues: ReadonlyMap<string, string>): Compared => {
  const { cgroup, comm, cpu, cpus_ptr, nice, nivcsw, nvcsw, policy, ppid, prio, sched_info, scx, se, state } = task
  const { dsq } = scx ?? {}
  return {
    states: {
      comm,
      state,
      class: task.class,
      policy,
      prio,
      nice,
      ppid,
      cpu,
      on_cpu: task.on_cpu,
      cpus_ptr,
      cgroup,
      wchan: task.wchan,
      queue: dsq === undefined || dsq === "0x0" ? undefined : queues.get(dsq) ?? dsq
    },
    counters: {
      nvcsw,
      nivcsw,
      utime: task.utime,
      stime: task.stime,
      sum_exec_runtime: se?.sum_exec_runtime,
      nr_migrations: se?.nr_migrations,
      pcount: sched_info?.pcount,
      run_delay: sched_info?.run_delay
    }
  }
}

function* queueChanges(old: DispatchQueue | undefined, now: DispatchQueue | undefined): Generator<SchedChange> {
  const queue = now ?? old
  if (queue === undefined) return
  const which = { queue: queueName(queue), address: queue.address }
  if (old === undefined || now === undefined) {
    yield { change: old === undefined ? "queueAdded" : "queueRemoved", ...which, tasks: queue.tasks.length }
    return
  }
  const [before, after] = [old, now].map(({ tasks }) => new Set(tasks.map(({ address }) => address)))
  const who = ({ comm, pid }: QueuedTask) => ({ pid, comm })
  const entered = now.tasks.filter(({ address }) => !before.has(address)).map(who)
  const left = old.tasks.filter(({ address }) => !after.has(address)).map(who)
  if (entered.length === 0 && left.length === 0) return
  yield { change: "queueChanged", ...which, before: old.tasks.length, after: now.tasks.length, entered, left }
}
