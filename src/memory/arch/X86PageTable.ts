import type { GuestMemory } from "../GuestMemory.ts"
import { PageTable } from "./PageTable.ts"

/**
 * Page tables of x86-64, with pages of 4 KiB, 2 MiB and 1 GiB.
 * @see Intel SDM vol. 3A, "4-Level Paging and 5-Level Paging", formats of the paging-structure entries
 * @since 0.1.0
 * @category models
 */
export class X86PageTable extends PageTable {
  /** `root` is CR3 without its low 12 bits, in bytes. */
  constructor(memory: GuestMemory, root: number, levels: 4 | 5) {
    super(memory, root, { arch: "x86-64", pageBits: 12, levels, rootBits: 9, kernelBits: 9 * levels + 11 })
  }

  /** PS is a table's bit at levels 4 and 5, which the CPU does not look at. */
  protected override isLeaf(low: number, level: number): boolean {
    return level === 1 || (level <= 3 && (low & 0x80) !== 0)
  }

  /** Bits 51:12; NX and software bits lie above. Bit 12 of a large leaf is PAT. */
  protected override target(low: number, high: number): number {
    return (high & 0xf_ffff) * 2 ** 32 + ((low & 0xffff_f000) >>> 0)
  }
}
