import { hex } from "../../core/Address.ts"
import { absent, type Reason, unreadable } from "../../core/Reason.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { schedLayouts } from "../SchedLayouts.ts"
import { millisOf, readTime } from "../SchedTime.ts"
import { readScxBase } from "./ScxState.ts"

/** The kernel adds it to times in jiffies, and compares these as signed numbers. */
const MOST_JIFFIES = 2 ** 31 - 1

/**
 * A scheduler whose tasks might be runnable for less than is wanted before the kernel ends it: `fromMillis`; `toMillis` is
 * what is wanted, in whole jiffies.
 *
 * @since 0.1.0
 * @category models
 */
export interface ShortWatchdog {
  readonly scheduler: string
  readonly fromMillis: number
  readonly toMillis: number
  /** Where the kernel keeps it: `scx_sched.watchdog_timeout` since v7.1, the variable `scx_watchdog_timeout` before. */
  readonly address: bigint
  readonly jiffies: bigint
}

/**
 * The loaded schedulers whose tasks may be runnable for less than `millis` before the kernel ends them; a reason where this
 * kernel has no sched_ext, or does not tell its times.
 * @see kernel/sched/ext.c `scx_watchdog_workfn`, `scx_tick`, v6.12 to v7.3
 *
 * @since 0.1.0
 * @category reading
 */
export const shortWatchdogs = (kernel: GuestKernelService, millis: number): ReadonlyArray<ShortWatchdog> | Reason => {
  const time = readTime(kernel)
  const scx = readScxBase(kernel, time)
  const { hz } = time
  if ("kind" in scx) return scx
  if (hz === null) return absent("CONFIG_HZ: this kernel does not tell it")
  const jiffies = Math.min(Math.ceil(millis * hz / 1000), MOST_JIFFIES)
  const toMillis = millisOf(jiffies, hz)
  const variable = kernel.symbols.address("scx_watchdog_timeout")
  const memberAt = schedLayouts(kernel.btf).sched?.at("watchdog_timeout")
  if (variable === undefined && memberAt === undefined) {
    return absent("the watchdog's time: the kernel's symbols lack scx_watchdog_timeout (CONFIG_KALLSYMS_ALL)")
  }
  return scx.schedulers.flatMap(({ address: scheduler, name, watchdogMillis }) => {
    const address = variable ?? BigInt(scheduler) + BigInt(memberAt ?? 0)
    return watchdogMillis === undefined || watchdogMillis >= toMillis
      ? []
      : [{ scheduler: name, fromMillis: watchdogMillis, toMillis, address, jiffies: BigInt(jiffies) }]
  })
}

/**
 * Have a stopped kernel let the tasks of its loaded schedulers be runnable for `millis` at least. It goes on to look as often as
 * before: to look later would end a scheduler whose time is shortened again. Gives those that were short of it, or why one of
 * them could not be written. A scheduler that is loaded later has its own time.
 *
 * @since 0.1.0
 * @category writing
 */
export const raiseWatchdogs = (kernel: GuestKernelService, millis: number): ReadonlyArray<ShortWatchdog> | Reason => {
  const short = shortWatchdogs(kernel, millis)
  for (const { address, jiffies, scheduler } of "kind" in short ? [] : short) {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(jiffies)
    if (!kernel.space.write(address, bytes)) {
      return unreadable(`the watchdog's time of ${scheduler} at ${hex(address)} cannot be written`)
    }
  }
  return short
}
