import type { ScxExitEvent } from "../host/ScxExit.ts"
import { placeOf, waitingMillis } from "../sched/Findings.ts"
import type { Task } from "../sched/tasks/Tasks.ts"
import type { FailureDocument } from "./Failure.ts"

/**
 * A task that the kernel says did not run: for how long it had been runnable, in milliseconds, and where it was when the
 * guest was stopped; with `early`, when it was stopped before the failure, as it did not wait there any more after it. `task` is
 * undefined of one that was not found.
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
  readonly early: boolean
}

/** `scx_watchdog_workfn` and those that it calls, kernel/sched/ext.c, v6.12 to v7.3. */
const STALLED = /(?:^|: )([^:]*)\[(\d+)\] failed to run for (\d+)\.(\d{3})s/

/**
 * The task that a scheduler was ended for, where it was a stall; of several ends the last with an error counts.
 *
 * @since 0.1.0
 * @category reading
 */
export const stuckTask = ({ early, failure, log, sched }: FailureDocument): StuckTask | undefined => {
  const [, comm, pid, seconds, rest] = STALLED.exec(failure.text) ?? []
  const named: ScxExitEvent["stalled"] = comm === undefined
    ? log.exits.findLast(({ kind }) => kind !== "normal")?.stalled ?? null
    : { comm, pid: Number(pid), millis: Number(seconds) * 1000 + Number(rest) }
  if (named === null) return undefined
  const late = placeIn(sched, named.pid)
  const before = early === undefined || "kind" in early.reading ? undefined : placeIn(early.reading.sched, named.pid)
  // the kernel moves the tasks of a scheduler that it ends to queues of its own (`scx_bypass`): they wait on
  const isMoved = late.place !== before?.place && late.task?.scx?.runnable_at === before?.task?.scx?.runnable_at
  const isBefore = before?.isWaiting === true && (isMoved || !late.isWaiting)
  const { place, task } = isBefore ? before : late
  return { ...named, task, place, early: isBefore }
}

const placeIn = (sched: FailureDocument["sched"], pid: number) => {
  if ("kind" in sched) return { task: undefined, place: undefined, isWaiting: false }
  const task = "kind" in sched.tasks ? undefined : sched.tasks.find((each) => each.pid === pid)
  if (task === undefined) return { task, place: undefined, isWaiting: false }
  const queues = "kind" in sched.dispatchQueues ? [] : sched.dispatchQueues
  return {
    task,
    place: placeOf(task, new Map(queues.map((queue) => [queue.address, queue]))),
    isWaiting: waitingMillis({ ...sched.time, ticks: BigInt(sched.time.jiffies) }, task) !== undefined
  }
}

/**
 * The tasks that were runnable for longest without running, the longest first, and for how long in milliseconds.
 *
 * @since 0.1.0
 * @category reading
 */
export const waitingLongest = (
  { sched }: Pick<FailureDocument, "sched">
): ReadonlyArray<{ readonly task: Task; readonly millis: number }> => {
  if ("kind" in sched || "kind" in sched.tasks) return []
  const time = { ...sched.time, ticks: BigInt(sched.time.jiffies) }
  return sched.tasks.flatMap((task) => {
    const millis = waitingMillis(time, task)
    return millis === undefined ? [] : [{ task, millis }]
  }).sort((a, b) => b.millis - a.millis)
}
