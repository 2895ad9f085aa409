import * as Either from "effect/Either"
import { enumeration } from "../../Enumeration.ts"
import { layout } from "../../Layout.ts"
import { checkArrays, offsetGroup } from "../../OffsetGroup.ts"

/**
 * `NR_SOFTIRQS` (include/linux/interrupt.h, v6.1 to v7.3): HI, TIMER, NET_TX, … RCU, an order that /proc/stat shows.
 */
const SOFTIRQS = 10

/**
 * Where each CPU's time went, in nanoseconds, and its interrupts: `cpustat.cpustat` has u64s that `times` indexes,
 * `kernelStat.softirqs` a u32 a vector, `irqs_sum` is an unsigned long (the ktstr crate's `CpuTimeOffsets`). `tick` has
 * the idle time that waited for I/O on kernels that stop their tick (CONFIG_NO_HZ_COMMON): nanoseconds, s64. Since v7.1
 * `cpustat` counts it whether the tick runs or not, and `tick` has no `iowait_sleeptime`.
 * @see include/linux/kernel_stat.h; kernel/time/tick-sched.h `struct tick_sched`; v6.1 to v7.3
 */
export const cpuTimeOffsets = offsetGroup("cpu-time", "each CPU's time and interrupts", function*(btf) {
  const times = yield* enumeration(btf, "cpu_usage_stat", [
    "CPUTIME_USER",
    "CPUTIME_NICE",
    "CPUTIME_SYSTEM",
    "CPUTIME_SOFTIRQ",
    "CPUTIME_IRQ",
    "CPUTIME_IDLE",
    "CPUTIME_IOWAIT",
    "CPUTIME_STEAL",
    "NR_STATS"
  ])
  const cpustat = yield* layout(btf, "kernel_cpustat", ["cpustat"])
  yield* checkArrays(cpustat, ["cpustat"], times.valueOf.NR_STATS, 8)
  const kernelStat = yield* layout(btf, "kernel_stat", ["irqs_sum", "softirqs"])
  yield* checkArrays(kernelStat, ["softirqs"], SOFTIRQS, 4)
  const tick = Either.getOrUndefined(layout(btf, "tick_sched", [], ["iowait_sleeptime"]))
  return { cpustat, kernelStat, tick, times }
})
