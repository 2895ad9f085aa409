import type { ScxExitEvent } from "../host/ScxExit.ts"
import { placeOf, waitingMillis } from "../sched/Findings.ts"
import type { Task } from "../sched/tasks/Tasks.ts"
import type { FailureDocument } from "./Failure.ts"

/**
 * A task that the kernel says did not run: for how long it had been runnable, in milliseconds, and where it was when the
 * guest was stopped. `task` is undefined of one that was not found any more.
 *
 * @since 0.1.0
 * @category models
 */
export interface StuckTask {
  readonly comm: string
  readonly pid: number
  readonly millis: number
  readonly task: Task | undefined
  readonly place: string | undefined
}

/** `scx_watchdog_workfn` and those that it calls, kernel/sched/ext.c, v6.12 to v7.3. */
const STALLED = /(?:^|: )([^:]*)\[(\d+)\] failed to run for (\d+)\.(\d{3})s/

/**
 * The task that a scheduler was ended for, where it was a stall.
 *
 * @since 0.1.0
 * @category reading
 */
export const stuckTask = ({ failure, log, sched }: FailureDocument): StuckTask | undefined => {
  const [, comm, pid, seconds, rest] = STALLED.exec(failure.text) ?? []
  const named: ScxExitEvent["stalled"] = comm === undefined
    ? log.exits.findLast(({ stalled }) => stalled !== null)?.stalled ?? null
    : { comm, pid: Number(pid), millis: Number(seconds) * 1000 + Number(rest) }
  if (named === null) return undefined
  const tasks = "kind" in sched || "kind" in sched.tasks ? [] : sched.tasks
  const queues = "kind" in sched || "kind" in sched.dispatchQueues ? [] : sched.dispatchQueues
  const task = tasks.find((each) => each.pid === named.pid)
  const place = task === undefined ? undefined : placeOf(task, new Map(queues.map((queue) => [queue.address, queue])))
  return { ...named, task, place }
}

/**
 * The tasks that were runnable for longest without running, the longest first, and for how long in milliseconds.
 *
 * @since 0.1.0
 * @category reading
 */
export const waitingLongest = (
  { sched }: FailureDocument
): ReadonlyArray<{ readonly task: Task; readonly millis: number }> => {
  if ("kind" in sched || "kind" in sched.tasks) return []
  const time = { ...sched.time, ticks: BigInt(sched.time.jiffies) }
  return sched.tasks.flatMap((task) => {
    const millis = waitingMillis(time, task)
    return millis === undefined ? [] : [{ task, millis }]
  }).sort((a, b) => b.millis - a.millis)
}
