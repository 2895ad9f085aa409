import { kvaOffset, kvaPage } from "../core/Address.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { enumValues } from "./EnumValues.ts"
import { schedLayouts } from "./SchedLayouts.ts"
import { type Int, integerAt } from "./StructFields.ts"

/** `NR_SOFTIRQS` names in their order: include/linux/interrupt.h, v6.1 to v7.3. */
const SOFTIRQS = ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"]

/**
 * Where a CPU's time went: nanoseconds by `enum cpu_usage_stat` without its prefix, and its interrupts since boot.
 *
 * @since 0.1.0
 * @category models
 */
export interface CpuTimes {
  readonly cpustat?: { readonly [name: string]: Int }
  readonly irqs_sum?: Int
  readonly softirqs?: { readonly [name: string]: Int }
}

/**
 * `kernel_cpustat` and `kstat` of a CPU. Idle time is what the tick counted; what a CPU without a tick adds for
 * `/proc/stat` is not in it.
 * @see include/linux/kernel_stat.h, v6.1 to v7.3
 */
export const readCpuTimes = (
  { btf, perCpu, space, symbols }: GuestKernelService,
  cpu: number
): { readonly times?: CpuTimes } => {
  const { cpustat, kstat } = schedLayouts(btf)
  const look = (name: string, size: number | undefined): boolean => {
    const symbol = symbols.address(name)
    const address = symbol === undefined ? undefined : perCpu(symbol, cpu)
    return address !== undefined && size !== undefined && space.window(kvaPage(address), kvaOffset(address), size)
  }
  const times: { -readonly [K in keyof CpuTimes]: CpuTimes[K] } = {}
  const statsAt = cpustat?.at("cpustat")
  if (statsAt !== undefined && look("kernel_cpustat", cpustat?.size)) {
    const stats: Record<string, Int> = {}
    for (const [index, name] of enumValues(btf, "cpu_usage_stat")) {
      const at = statsAt + Number(index) * 8
      if (name.startsWith("CPUTIME_") && at + 8 <= (cpustat?.size ?? 0)) {
        stats[name.slice(8).toLowerCase()] = integerAt(space.view, space.at + at, 8, false)
      }
    }
    times.cpustat = stats
  }
  const softAt = kstat?.at("softirqs")
  if (kstat !== undefined && softAt !== undefined && look("kstat", kstat.size)) {
    const { at, view } = space
    times.irqs_sum = kstat.read(view, at).irqs_sum ?? 0
    times.softirqs = Object.fromEntries(SOFTIRQS.map((name, i) => [name, view.getUint32(at + softAt + i * 4, true)]))
  }
  return Object.keys(times).length === 0 ? {} : { times }
}
