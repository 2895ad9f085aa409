import { layoutOf } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"
import { rqLayout } from "./RunQueue.ts"

/**
 * The counters of a CPU's run queue: `schedInfo`'s are 64 bits wide, `rq`'s 32 (the ktstr crate's `SchedstatOffsets`).
 * @see kernel/sched/sched.h `struct rq`; include/linux/sched.h `struct sched_info`; v6.1 to v7.3, with
 * CONFIG_SCHEDSTATS
 */
export const schedstatOffsets = offsetGroup("schedstat", "counters of run queues (CONFIG_SCHEDSTATS)", function*(btf) {
  const rq = yield* rqLayout(btf, [
    "rq_sched_info",
    "yld_count",
    "sched_count",
    "sched_goidle",
    "ttwu_count",
    "ttwu_local"
  ])
  return { rq, schedInfo: yield* layoutOf(btf, rq.typeOf.rq_sched_info, ["run_delay", "pcount"]) }
})
