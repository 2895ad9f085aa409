import * as Either from "effect/Either"
import { layout } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"

/**
 * sched_ext's event counters, each an s64 of `stats`, one set a CPU (the ktstr crate's `ScxEventOffsets`). Where they
 * are:
 * - `pcpu` is there: `sched.at.pcpu` holds a `__percpu` pointer to what has the counters at `pcpu.at.event_stats`.
 *   v6.18, and v6.17.7: "sched_ext: Put event_stats_cpu in struct scx_sched_pcpu".
 * - `sched` alone: the `__percpu` pointer at `sched.at.event_stats_cpu` is the counters' own. v6.16 and v6.17.
 * - neither: the per-CPU variable `event_stats_cpu` is the counters; no `scx_sched` yet. v6.14 and v6.15.
 *
 * SCX_EV_REFILL_SLICE_DFL was SCX_EV_ENQ_SLICE_DFL at first; SCX_EV_REENQ_LOCAL_REPEAT lost its LOCAL after v7.1.
 * @see kernel/sched/ext.c, since v6.18 ext_internal.h: `struct scx_event_stats`, `struct scx_sched`
 */
export const scxEventOffsets = offsetGroup("scx-events", "sched_ext's event counters", function*(btf) {
  const stats = yield* layout(
    btf,
    "scx_event_stats",
    [
      "SCX_EV_SELECT_CPU_FALLBACK",
      "SCX_EV_DISPATCH_LOCAL_DSQ_OFFLINE",
      "SCX_EV_DISPATCH_KEEP_LAST",
      "SCX_EV_ENQ_SKIP_EXITING",
      "SCX_EV_ENQ_SKIP_MIGRATION_DISABLED"
    ],
    [
      "SCX_EV_REENQ_IMMED",
      "SCX_EV_REENQ_LOCAL_REPEAT",
      "SCX_EV_REFILL_SLICE_DFL",
      "SCX_EV_BYPASS_DURATION",
      "SCX_EV_BYPASS_DISPATCH",
      "SCX_EV_BYPASS_ACTIVATE",
      "SCX_EV_INSERT_NOT_OWNED",
      "SCX_EV_SUB_BYPASS_DISPATCH"
    ],
    { SCX_EV_REFILL_SLICE_DFL: "SCX_EV_ENQ_SLICE_DFL", SCX_EV_REENQ_LOCAL_REPEAT: "SCX_EV_REENQ_REPEAT" }
  )
  const nested = Either.all({
    sched: layout(btf, "scx_sched", ["pcpu"]),
    pcpu: layout(btf, "scx_sched_pcpu", ["event_stats"])
  })
  if (Either.isRight(nested)) return { stats, ...nested.right }
  const pointer = layout(btf, "scx_sched", ["event_stats_cpu"])
  if (Either.isRight(pointer)) return { stats, sched: pointer.right, pcpu: undefined }
  // Its candidates are 0 where there is no scx_sched at all.
  if (pointer.left.candidates > 0) return yield* Either.left(nested.left)
  return { stats, sched: undefined, pcpu: undefined }
})
