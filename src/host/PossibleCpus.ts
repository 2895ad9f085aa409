import { readFileSync } from "node:fs"

/** The CPUs that the running kernel has per-CPU memory for, ascending; more than those that are online, perhaps. */
export const possibleCpus = (): ReadonlyArray<number> =>
  parseCpuList(readFileSync("/sys/devices/system/cpu/possible", "latin1"))

/** `0-3,8` → 0, 1, 2, 3, 8; include/linux/cpumask.h `cpumap_print_to_pagebuf`, v6.12. */
export const parseCpuList = (text: string): ReadonlyArray<number> =>
  text.trim().split(",").filter((part) => part !== "").flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })
