import { layout } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"

/**
 * How long a runnable task may wait before sched_ext ends its scheduler, in jiffies, an unsigned long (the ktstr
 * crate's `ScxWatchdogOffsets`). Before v7.1 it is a variable of its own: the symbol `scx_watchdog_timeout`.
 * @see kernel/sched/ext_internal.h `struct scx_sched`, v7.1
 */
export const scxWatchdogOffsets = offsetGroup("scx-watchdog", "sched_ext's watchdog timeout", function*(btf) {
  return { sched: yield* layout(btf, "scx_sched", ["watchdog_timeout"]) }
})
