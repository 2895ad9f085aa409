import { absent, corrupted, type Reason, unreadable, within } from "../core/Reason.ts"
import type { KernelSpace } from "./KernelSpace.ts"
import type { Symbols } from "./Symbols.ts"

/** The largest `CONFIG_NR_CPUS` on x86-64; arch/x86/Kconfig, v6.12. */
const MAX_CPUS = 8192

/**
 * `offsets[n]` is `__per_cpu_offset[n]`, undefined where CPU n is not possible.
 *
 * @since 0.1.0
 * @category models
 */
export interface PerCpuOffsets {
  readonly offsets: ReadonlyArray<bigint | undefined>
  /** Why `offsets` lacks CPUs that it should have, or is empty. */
  readonly problem: Reason | undefined
}

/**
 * The per-CPU offsets of the possible CPUs (`__cpu_possible_mask`, below `nr_cpu_ids`). A kernel built for one CPU has no
 * such offsets: its per-CPU pointers are plain addresses. On others an offset of 0 means that the CPU has no area; taken
 * as it is, it would alias something else.
 * @param maskBits bits in a `struct cpumask`: `CONFIG_NR_CPUS` rounded up to 64
 * @see arch/x86/kernel/setup_percpu.c, kernel/cpu.c, include/linux/percpu-defs.h `per_cpu_ptr`, v6.12
 * @since 0.1.0
 * @category reading
 */
export const perCpuOffsets = (space: KernelSpace, symbols: Symbols, maskBits: number): PerCpuOffsets => {
  const mask = symbols.address("__cpu_possible_mask")
  const table = symbols.address("__per_cpu_offset")
  if (mask === undefined) {
    return { offsets: [], problem: absent("the kernel's symbols lack __cpu_possible_mask (CONFIG_KALLSYMS_ALL)") }
  }
  if (table === undefined) return { offsets: [0n], problem: undefined }
  const ids = symbols.address("nr_cpu_ids")
  const limit = Math.min(ids === undefined ? maskBits : space.u32(ids), maskBits, MAX_CPUS)
  const offsets: Array<bigint | undefined> = []
  const missing: Array<number> = []
  for (let cpu = 0; cpu < limit; cpu++) {
    const word = space.u32(mask + BigInt(cpu >>> 5) * 4n)
    if (word < 0) return { offsets, problem: within("__cpu_possible_mask", space.faultReason) }
    if ((word >>> (cpu & 31) & 1) === 0) continue
    const offset = space.u64(table + BigInt(cpu) * 8n)
    if (offset === undefined || offset === 0n) missing.push(cpu)
    else offsets[cpu] = offset
  }
  const cpus = Array.from(offsets) // no holes: undefined is a value
  if (missing.length > 0) {
    return { offsets: cpus, problem: unreadable(`no per-CPU area for CPU ${missing.slice(0, 8).join(", ")}`) }
  }
  return { offsets: cpus, problem: cpus.length === 0 ? corrupted("__cpu_possible_mask names no CPU") : undefined }
}
