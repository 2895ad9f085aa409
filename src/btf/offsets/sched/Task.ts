import { enumeration } from "../../Enumeration.ts"
import { layout } from "../../Layout.ts"
import { checkArrays, offsetGroup } from "../../OffsetGroup.ts"

/**
 * Who a task is and how it ran (the ktstr crate's `TaskEnrichmentOffsets`). `signal.pids` are pointers to `pid` that
 * `pidTypes` indexes; the number in the root namespace is at `pid.at.numbers` plus `upid.at.nr`, the next namespace's
 * `upid.size` further. `utime` and `stime` are nanoseconds. `core_cookie` needs CONFIG_SCHED_CORE.
 * @see include/linux/sched.h `struct task_struct`; include/linux/sched/signal.h `struct signal_struct`;
 * include/linux/pid.h `struct pid`, `struct upid`; v6.1 to v7.3
 */
export const taskOffsets = offsetGroup("task", "tasks: identity, priorities, switches, time", function*(btf) {
  const signal = yield* layout(btf, "signal_struct", ["nr_threads", "pids", "nvcsw", "nivcsw"])
  const pidTypes = yield* enumeration(btf, "pid_type", [
    "PIDTYPE_PID",
    "PIDTYPE_TGID",
    "PIDTYPE_PGID",
    "PIDTYPE_SID"
  ])
  yield* checkArrays(signal, ["pids"], Math.max(...Object.values(pidTypes.valueOf)) + 1, 8)
  const upid = yield* layout(btf, "upid", ["nr"])
  const pid = yield* layout(btf, "pid", ["numbers"])
  yield* checkArrays(pid, ["numbers"], 0, upid.size)
  return {
    task: yield* layout(btf, "task_struct", [
      "tgid",
      "prio",
      "static_prio",
      "normal_prio",
      "rt_priority",
      "sched_class",
      "real_parent",
      "group_leader",
      "signal",
      "stack",
      "nvcsw",
      "nivcsw",
      "utime",
      "stime"
    ], ["core_cookie"]),
    signal,
    pid,
    upid,
    pidTypes
  }
})
