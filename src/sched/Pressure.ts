import { kvaOffset, kvaPage } from "../core/Address.ts"
import { absent, type Reason, unreadable } from "../core/Reason.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { enumValues } from "./EnumValues.ts"
import { schedLayouts } from "./SchedLayouts.ts"
import { type Int, integerAt } from "./StructFields.ts"

/** `FIXED_1`, 11 bits: include/linux/sched/loadavg.h, v6.1 to v7.3. */
const FIXED_1 = 2048
/** `PSI_AVGS` of `psi_group.total`. */
const AVGS = 0

/**
 * One state's averages in percent over 10, 60 and 300 seconds, and the time spent in it since boot in nanoseconds.
 *
 * @since 0.1.0
 * @category models
 */
export interface Stall {
  readonly avg10: number
  readonly avg60: number
  readonly avg300: number
  readonly total: Int
}

/**
 * By state as `/proc/pressure` has it: `cpu_some`, `memory_full`.
 *
 * @since 0.1.0
 * @category models
 */
export type Pressure = { readonly [state: string]: Stall }

/**
 * Pressure stall information of the whole system, as its worker last updated it (every 2 seconds).
 * @see include/linux/psi_types.h `struct psi_group`, kernel/sched/psi.c; v6.1 to v7.3
 * @since 0.1.0
 * @category reading
 */
export const readPressure = ({ btf, space, symbols }: GuestKernelService): Pressure | Reason => {
  const address = symbols.address("psi_system")
  const { psi } = schedLayouts(btf)
  const totalAt = psi?.at("total")
  const avgAt = psi?.at("avg")
  if (psi === undefined || totalAt === undefined || avgAt === undefined) {
    return absent("this kernel was built without CONFIG_PSI")
  }
  if (address === undefined) return absent("pressure stall information: the kernel's symbols lack psi_system")
  const key = symbols.address("psi_disabled")
  const off = key === undefined ? -1 : space.u32(key)
  if (off > 0) return absent("pressure stall information is switched off (psi=0)")
  if (!space.window(kvaPage(address), kvaOffset(address), psi.size)) return unreadable(`psi_system: ${space.faultText}`)
  const { at, view } = space
  const pressure: Record<string, Stall> = {}
  const states = Math.floor((psi.sizeOf("avg") ?? 0) / 24)
  for (const [index, name] of enumValues(btf, "psi_states")) {
    if (Number(index) >= states || !/_(SOME|FULL)$/.test(name)) continue
    const average = (span: number) =>
      Number(integerAt(view, at + avgAt + Number(index) * 24 + span * 8, 8, false)) / FIXED_1
    const label = name.replace(/^PSI_/, "").replace(/^MEM_/, "MEMORY_").toLowerCase()
    pressure[label] = {
      avg10: round(average(0)),
      avg60: round(average(1)),
      avg300: round(average(2)),
      total: integerAt(view, at + totalAt + (AVGS * states + Number(index)) * 8, 8, false)
    }
  }
  return pressure
}

const round = (percent: number): number => Math.floor(percent * 100) / 100
