import type { RunQueue } from "./RunQueues.ts"
import { millisSince, type SchedTime } from "./SchedTime.ts"
import type { DispatchQueue, DispatchQueueBase } from "./scx/DispatchQueues.ts"
import { exitKindOf, type ScxBase } from "./scx/ScxState.ts"
import { inCpuList } from "./tasks/CpuList.ts"
import type { RunnableTask, Task } from "./tasks/Tasks.ts"

/**
 * From where on something looks wrong.
 *
 * @since 0.1.0
 * @category models
 */
export interface Thresholds {
  /** Of the watchdog's timeout: a task that is runnable for longer. */
  readonly runnableShare: number
  /** A CPU is idle while a task that may run there waits in a queue for longer, in milliseconds. */
  readonly idleMillis: number
  /** A busy CPU's timer has been due for longer, in milliseconds. Without such timers: its clock is behind the newest one by more. */
  readonly clockMillis: number
  /** A scheduler is bypassed for longer, in milliseconds. */
  readonly bypassMillis: number
}

/**
 * Thresholds used where none are given.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultThresholds: Thresholds = {
  runnableShare: 0.5,
  idleMillis: 50,
  clockMillis: 1000,
  bypassMillis: 1000
}

/**
 * Something that looks wrong: `measured` is beyond `threshold`, in `unit`, where there is something to measure.
 *
 * @since 0.1.0
 * @category models
 */
export interface Finding {
  readonly name:
    | "runnable-too-long"
    | "idle-with-work"
    | "clock-stands"
    | "queue-disagrees"
    | "not-allowed-here"
    | "long-bypass"
    | "scheduler-exits"
  readonly text: string
  readonly cpu?: number
  readonly pid?: number
  readonly comm?: string
  /** A queue's or a scheduler's address. */
  readonly address?: string
  readonly measured?: number
  readonly threshold?: number
  readonly unit?: "ms"
}

/**
 * The state that findings are made from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Seen {
  readonly time: SchedTime & { readonly ticks: bigint }
  /** The kernel's ktime at the instant, in nanoseconds; null where it is not known. */
  readonly ktime: number | null
  readonly runQueues: ReadonlyArray<RunQueue>
  readonly scx: ScxBase | undefined
  readonly dispatchQueues: ReadonlyArray<DispatchQueue>
  readonly tasks: ReadonlyArray<Task>
}

/** `SCX_TASK_QUEUED`, `SCX_TASK_RESET_RUNNABLE_AT`; include/linux/sched/ext.h, v6.12 to v7.3. */
const QUEUED = 1
const RESET_RUNNABLE_AT = 4
/** `sched_ext_entity.ops_state`: `SCX_OPSS_STATE_MASK`, and its values. */
const OPSS_MASK = 3
const OPSS_QUEUED = 2

/** The kernel's default timeout, which a scheduler can only shorten: `SCX_WATCHDOG_MAX_TIMEOUT`, 30 s. */
const WATCHDOG_MILLIS = 30_000

/** For how long an ext task has been waiting for a CPU, in milliseconds; undefined of one that is not. */
export const waitingMillis = (time: Seen["time"], task: RunnableTask): number | undefined => {
  const { scx } = task
  const flags = Number(scx?.flags ?? 0)
  if (task.class !== "ext" || task.on_cpu !== 0 || (flags & QUEUED) === 0) return undefined
  if ((flags & RESET_RUNNABLE_AT) !== 0) return 0
  return scx?.runnable_at === undefined ? undefined : millisSince(time, scx.runnable_at) ?? undefined
}

/** A queue by its place: `the local queue of CPU 1`, `queue 0x2a`. */
export const queueName = ({ cpu, id, kind, node }: DispatchQueueBase): string => {
  if (kind === "user") return `queue ${id}`
  if (node !== undefined) return `the ${kind} queue of node ${node}`
  return `the ${kind} queue of CPU ${cpu}`
}

/** Where a runnable task of sched_ext is, in words. */
export const placeOf = (task: Task, queues: ReadonlyMap<string, DispatchQueue>): string => {
  if (task.on_cpu !== 0 && task.on_cpu !== undefined) return `on CPU ${task.cpu}`
  const { scx } = task
  const dsq = scx?.dsq
  if (dsq !== undefined && dsq !== "0x0") {
    const queue = queues.get(dsq)
    return queue === undefined ? `in a queue at ${dsq} that was not found` : `in ${queueName(queue)}`
  }
  if (scx?.ops_state !== undefined && (Number(scx.ops_state) & OPSS_MASK) === OPSS_QUEUED) {
    return "with the BPF scheduler, which has not dispatched it"
  }
  if (task.class !== "ext") return task.on_rq === 0 ? "not runnable" : `in the ${task.class} queue of CPU ${task.cpu}`
  return (Number(scx?.flags ?? 0) & QUEUED) !== 0 ? "queued, but in no queue" : "not runnable"
}

/**
 * All that looks wrong.
 *
 * @since 0.1.0
 * @category reading
 */
export const findings = (seen: Seen, thresholds: Thresholds = defaultThresholds): ReadonlyArray<Finding> => [
  ...exits(seen),
  ...waitingTasks(seen, thresholds),
  ...idleCpus(seen, thresholds),
  ...standingClocks(seen, thresholds),
  ...disagreeingQueues(seen),
  ...misplaced(seen),
  ...bypasses(seen, thresholds)
]

const exits = ({ scx }: Seen): ReadonlyArray<Finding> =>
  (scx?.schedulers ?? []).filter(({ exit_kind }) => exit_kind !== "NONE").map((scheduler) => {
    const { address, exitInfo, name } = scheduler
    const said = exitInfo?.message === undefined || exitInfo.message === "" ? "" : `: ${exitInfo.message}`
    return { name: "scheduler-exits", address, text: `scheduler ${name} exits: ${exitKindOf(scheduler)}${said}` }
  })

const waitingTasks = (seen: Seen, { runnableShare }: Thresholds): ReadonlyArray<Finding> => {
  const queues = new Map(seen.dispatchQueues.map((queue) => [queue.address, queue]))
  const timeouts = new Map(
    (seen.scx?.schedulers ?? []).map(({ address, watchdogMillis }) => [address, watchdogMillis ?? WATCHDOG_MILLIS])
  )
  const root = seen.scx?.schedulers.find(({ root }) => root)?.watchdogMillis ?? WATCHDOG_MILLIS
  const found: Array<Finding> = []
  for (const task of seen.tasks) {
    const waiting = waitingMillis(seen.time, task)
    if (waiting === undefined) continue
    const threshold = (timeouts.get(task.scx?.sched ?? "") ?? root) * runnableShare
    if (waiting <= threshold) continue
    found.push({
      name: "runnable-too-long",
      pid: task.pid,
      comm: task.comm,
      measured: waiting,
      threshold,
      unit: "ms",
      text: `${task.comm}[${task.pid}] has been runnable for ${waiting} ms, more than ${threshold} ms: it is ${
        placeOf(task, queues)
      }`
    })
  }
  return found
}

const isIdle = ({ curr, online }: RunQueue): boolean => online && curr?.class === "idle"

const idleCpus = ({ dispatchQueues, runQueues, tasks }: Seen, { idleMillis }: Thresholds): ReadonlyArray<Finding> => {
  const idle = runQueues.filter(isIdle)
  if (idle.length === 0) return []
  const queued = new Set(dispatchQueues.flatMap((queue) => queue.tasks.map(({ address }) => address)))
  const allowed = new Map<string, string>()
  for (const { address, cpus_ptr } of queued.size === 0 ? [] : tasks) {
    if (queued.has(address)) allowed.set(address, cpus_ptr ?? "")
  }
  return idle.flatMap(({ cpu }): ReadonlyArray<Finding> => {
    for (const queue of dispatchQueues) {
      if (queue.cpu !== undefined && queue.cpu !== cpu) continue
      const task = queue.tasks.find(({ address, waitingMillis }) =>
        waitingMillis !== null && waitingMillis > idleMillis && inCpuList(allowed.get(address) ?? "", cpu)
      )
      if (task === undefined || task.waitingMillis === null) continue
      return [{
        name: "idle-with-work",
        cpu,
        pid: task.pid,
        comm: task.comm,
        address: queue.address,
        measured: task.waitingMillis,
        threshold: idleMillis,
        unit: "ms",
        text: `CPU ${cpu} is idle, but ${task.comm}[${task.pid}], which may run there, has waited in ${
          queueName(queue)
        } for ${task.waitingMillis} ms`
      }]
    }
    return []
  })
}

/** The newest of the run queues' clocks, in nanoseconds. */
export const newestClock = (runQueues: ReadonlyArray<RunQueue>): number =>
  runQueues.reduce((newest, { clock }) => Math.max(newest, Number(clock ?? 0)), 0)

const standingClocks = ({ runQueues }: Seen, { clockMillis }: Thresholds): ReadonlyArray<Finding> => {
  const newest = newestClock(runQueues)
  return runQueues.flatMap((queue): ReadonlyArray<Finding> => {
    // another CPU that looks for tasks moves the queue's clock, but nobody else handles a CPU's timers
    const { clock, cpu, timerLateNanos } = queue
    const behind = Math.round(Number(timerLateNanos ?? newest - Number(clock ?? newest)) / 1e6)
    if (!queue.online || isIdle(queue) || behind <= clockMillis) return []
    const stands = timerLateNanos === undefined
      ? `its clock is ${behind} ms behind the newest`
      : `its timer has been due for ${behind} ms: it handles no interrupts`
    return [{
      name: "clock-stands",
      cpu,
      measured: behind,
      threshold: clockMillis,
      unit: "ms",
      text: `CPU ${cpu} is busy, but ${stands}`
    }]
  })
}

const disagreeingQueues = ({ dispatchQueues }: Seen): ReadonlyArray<Finding> =>
  dispatchQueues.flatMap((queue) =>
    queue.problems.map(({ text }) => ({
      name: "queue-disagrees" as const,
      address: queue.address,
      ...(queue.cpu === undefined ? {} : { cpu: queue.cpu }),
      text: `${queueName(queue)} at ${queue.address}: ${text}`
    }))
  )

const misplaced = ({ runQueues, tasks }: Seen): ReadonlyArray<Finding> => {
  // by number, which is compared faster than an address where there are ten thousand
  const current = new Set(runQueues.map(({ curr }) => curr?.pid))
  const byAddress = new Map<string, Task>()
  for (const task of tasks) if (current.has(task.pid)) byAddress.set(task.address, task)
  return runQueues.flatMap(({ cpu, curr, locked }): ReadonlyArray<Finding> => {
    const task = curr === undefined ? undefined : byAddress.get(curr.address)
    const list = task?.cpus_ptr
    // `migration_disabled` tasks stay where they are whatever is allowed; a held lock means that this changes just now
    if (task === undefined || list === undefined || inCpuList(list, cpu) || locked === true) return []
    if (Number(task.migration_disabled ?? 0) !== 0) return []
    return [{
      name: "not-allowed-here",
      cpu,
      pid: task.pid,
      comm: task.comm,
      text: `CPU ${cpu} runs ${task.comm}[${task.pid}], which may only run on ${list}`
    }]
  })
}

const bypasses = ({ ktime, scx }: Seen, { bypassMillis }: Thresholds): ReadonlyArray<Finding> => {
  // it is normal while a scheduler comes or goes
  if (scx?.state !== "enabled" || ktime === null) return []
  return scx.schedulers.flatMap(({ address, bypass_depth, bypass_timestamp, name }): ReadonlyArray<Finding> => {
    if (bypass_depth === undefined || Number(bypass_depth) <= 0 || bypass_timestamp === undefined) return []
    const millis = Math.round((ktime - Number(bypass_timestamp)) / 1e6)
    if (millis <= bypassMillis) return []
    return [{
      name: "long-bypass",
      address,
      measured: millis,
      threshold: bypassMillis,
      unit: "ms",
      text: `scheduler ${name} has been bypassed for ${millis} ms: the kernel schedules its tasks in its place`
    }]
  })
}
