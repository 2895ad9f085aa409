import type { GuestMemory } from "../GuestMemory.ts"
import { PageTable } from "./PageTable.ts"

/**
 * The shape of an arm64 kernel's tables, all in bits.
 *
 * @since 0.1.0
 * @category models
 */
export interface Arm64Paging {
  /** Of an address within a page: 12, 14 or 16. */
  readonly pageBits: 12 | 14 | 16
  /** Those that the kernel, and the size of its root, were made for: `CONFIG_ARM64_VA_BITS`. */
  readonly vaBits: number
  /** Those that the CPU translates, 64 - `TCR_EL1.T1SZ`: fewer where it lacks what the kernel was built for. */
  readonly usedBits: number
}

/**
 * Page tables of arm64 under TTBR1, with pages of 4, 16 or 64 KiB, of 2 to 5 levels. More than 48 bits of addresses take
 * another form of entries, LPA2 (`TCR_EL1.DS`), where pages are below 64 KiB; Linux uses it for nothing else.
 * @see Arm ARM (DDI 0487) D8.3, "Translation table descriptor formats"; arch/arm64/include/asm/pgtable-hwdef.h
 * `ARM64_HW_PGTABLE_LEVELS`, arch/arm64/mm/proc.S `__cpu_setup`, arch/arm64/include/asm/assembler.h `offset_ttbr1`, v6.12
 * @since 0.1.0
 * @category models
 */
export class Arm64PageTable extends PageTable {
  readonly paging: Arm64Paging
  readonly #lpa2: boolean
  readonly #pageBits: number
  /** The highest level at which an entry may map memory itself. */
  readonly #mostLeaf: number

  constructor(memory: GuestMemory, root: number, paging: Arm64Paging) {
    const { pageBits, usedBits, vaBits } = paging
    const levels = Math.floor((usedBits - 4) / (pageBits - 3))
    const rootShift = pageBits + (pageBits - 3) * (levels - 1)
    super(memory, root, {
      arch: "arm64",
      pageBits,
      levels,
      rootBits: Math.min(pageBits - 3, vaBits - rootShift),
      kernelBits: usedBits
    })
    this.paging = paging
    this.#pageBits = pageBits
    this.#lpa2 = pageBits < 16 && usedBits > 48
    this.#mostLeaf = { 12: 3, 14: 2, 16: 3 }[pageBits] + (this.#lpa2 ? 1 : 0)
  }

  /** Bit 1: a table, or at level 1 a page; without it a block, which level 1 and the highest levels do not have. */
  protected override isLeaf(low: number, level: number): boolean | undefined {
    const isTable = (low & 2) !== 0
    if (level === 1) return isTable ? true : undefined
    return isTable ? false : level <= this.#mostLeaf ? true : undefined
  }

  /** Bits 47:12 or :14; of pages of 64 KiB bits 47:16, and bits 51:48 at 15:12; with LPA2 bits 49:12, and bits 51:50 at 9:8. */
  protected override target(low: number, high: number): number {
    const below = (low >>> this.#pageBits) * 2 ** this.#pageBits
    if (this.#lpa2) return (((low >>> 8 & 3) << 18) + (high & 0x3_ffff)) * 2 ** 32 + below
    const above = this.#pageBits === 16 ? (low >>> 12 & 15) << 16 : 0
    return (above + (high & 0xffff)) * 2 ** 32 + below
  }
}
