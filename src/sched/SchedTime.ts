import { kvaOffset, kvaPage } from "../core/Address.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { schedLayouts } from "./SchedLayouts.ts"
import { type Int, intOf } from "./StructFields.ts"

/**
 * A kernel's clock at the instant.
 *
 * @since 0.1.0
 * @category models
 */
export interface SchedTime {
  /** `jiffies_64`: ticks since boot, which start at 2^32 - 300 s. */
  readonly jiffies: Int
  /** Ticks a second (CONFIG_HZ); null where the kernel does not tell. */
  readonly hz: number | null
}

/**
 * `jiffies_64`, and CONFIG_HZ from `clocksource_jiffies`, whose `mult` >> `shift` is the nanoseconds of a tick.
 * @see kernel/time/jiffies.c, v6.1 to v7.3
 * @since 0.1.0
 * @category reading
 */
export const readTime = (kernel: GuestKernelService): SchedTime & { readonly ticks: bigint } => {
  const { space, symbols } = kernel
  const address = symbols.address("jiffies_64") ?? symbols.address("jiffies")
  const ticks = address === undefined ? 0n : space.u64(address) ?? 0n
  return { jiffies: intOf(ticks), ticks, hz: readHz(kernel) }
}

const readHz = ({ btf, space, symbols }: GuestKernelService): number | null => {
  const { clocksource } = schedLayouts(btf)
  const address = symbols.address("clocksource_jiffies")
  if (clocksource === undefined || address === undefined) return null
  const bytes = space.read(address, clocksource.size)
  if (bytes === undefined) return null
  const { mult, shift } = clocksource.read(new DataView(bytes.buffer), 0)
  const nanos = Number(mult) / 2 ** Number(shift)
  const hz = Math.round(1e9 / nanos)
  return hz >= 10 && hz <= 10_000 ? hz : null
}

/**
 * The time of the last tick by `ktime_get_ns()`, in nanoseconds since boot: `tick_next_period`, by when the next tick is
 * due, less a tick. Run queues' clocks are another clock, which may be apart from it. Null where the kernel does not tell.
 * @see kernel/time/tick-sched.c `tick_do_update_jiffies64`, v6.1 to v7.3
 */
export const readKtime = (
  { space, symbols }: GuestKernelService,
  { hz }: Pick<SchedTime, "hz">
): number | null => {
  const address = symbols.address("tick_next_period")
  const due = address === undefined ? undefined : space.u64(address)
  return due === undefined || hz === null ? null : Number(due) - 1e9 / hz
}

/**
 * For how long a CPU's next timer has been due, in nanoseconds: of a CPU that handles its interrupts not much more than a
 * tick, and negative of a timer to come. Undefined where a CPU has no timer, or none of high resolution.
 * @see kernel/time/hrtimer.c `hrtimer_interrupt`, include/linux/hrtimer_defs.h `struct hrtimer_cpu_base`, v6.1 to v7.3
 */
export const readTimerLateness = (kernel: GuestKernelService, cpu: number): Int | undefined => {
  const { btf, perCpu, space, symbols } = kernel
  const { timers } = schedLayouts(btf)
  const symbol = symbols.address("hrtimer_bases")
  const address = symbol === undefined ? undefined : perCpu(symbol, cpu)
  const now = readKtime(kernel, readTime(kernel))
  if (timers === undefined || address === undefined || now === null) return undefined
  if (!space.window(kvaPage(address), kvaOffset(address), timers.size)) return undefined
  const { expires_next, hres_active } = timers.read(space.view, space.at)
  // beyond 2^53 it is KTIME_MAX: there is none, or the interrupt is being handled
  if (hres_active !== true || typeof expires_next !== "number") return undefined
  return intOf(BigInt(Math.round(now - expires_next))) // a tick need not be a whole number of nanoseconds
}

/** Milliseconds of a number of ticks, to the nearest: of a HZ of 300 a tick is not a whole number of them. */
export const millisOf = (ticks: number, hz: number): number => Math.round(ticks * 1000 / hz)

/** Milliseconds from a `jiffies` stamp to now, negative of a stamp in the future; null where HZ is not known. */
export const millisSince = (
  { hz, ticks }: { readonly hz: number | null; readonly ticks: bigint },
  stamp: Int
): number | null => hz === null ? null : millisOf(Number(BigInt.asIntN(64, ticks - BigInt(stamp))), hz)
