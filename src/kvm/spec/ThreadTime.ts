import { readFileSync } from "node:fs"

/**
 * CPU time that a thread of this host has had, in nanoseconds; undefined where there is none, or the kernel does not count it.
 * @see Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat", v6.12
 */
export const threadNanos = (thread: number): number | undefined => {
  try {
    return Number.parseInt(readFileSync(`/proc/${thread}/schedstat`, "latin1"), 10)
  } catch {
    return undefined
  }
}
