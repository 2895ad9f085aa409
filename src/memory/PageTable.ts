import type { GuestMemory } from "./GuestMemory.ts"

/**
 * No mapping, or an address outside the kernel's half.
 *
 * @since 0.1.0
 * @category constants
 */
export const NOT_PRESENT = -1
/**
 * A table (or, for a `KernelSpace`, the page itself) lies where the image has no bytes.
 *
 * @since 0.1.0
 * @category constants
 */
export const OUT_OF_MEMORY = -2

const END = 2 ** 52

/**
 * The page tables under one root, by page number (address / 4096, exact in a double). Hot: numbers in and out, nothing
 * allocated, no exceptions.
 * @see Intel SDM vol. 3A, "4-Level Paging and 5-Level Paging", formats of the paging-structure entries
 * @since 0.1.0
 * @category models
 */
export class PageTable {
  /**
   * The level of the entry at which the last `walk` ended: 1 for a 4 KiB page, 2 for 2 MiB, 3 for 1 GiB, or where nothing
   * was; of an entry whose table the image lacks, that entry's (of the root, one more than there are levels).
   */
  level = 0
  /** The physical address of the entry that the last walk which ended with `OUT_OF_MEMORY` could not read. */
  #missing = 0
  /** The lowest page number of the kernel's half. */
  readonly kernelStart: number

  /** `root` is CR3 without its low 12 bits, in bytes. */
  constructor(readonly memory: GuestMemory, readonly root: number, readonly levels: 4 | 5) {
    this.kernelStart = END - 2 ** (levels === 5 ? 44 : 35)
  }

  /** The physical byte address of a kernel page, which the image need not have; or `NOT_PRESENT`, `OUT_OF_MEMORY`. */
  walk(page: number): number {
    if (!(page >= this.kernelStart && page < END)) return NOT_PRESENT
    const { memory } = this
    const low = page & 0x7ff_ffff
    const high = Math.floor(page / 2 ** 27)
    let table = this.root
    for (let level: number = this.levels; level > 0; level--) {
      this.level = level
      const index = level > 3 ? high >>> (9 * (level - 4)) : low >>> (9 * (level - 1))
      const at = table + (index & 511) * 8
      const whole = memory.seek(at, 8)
      const lo = whole ? memory.view.getUint32(memory.at, true) : memory.u32(at)
      const hi = whole ? memory.view.getUint32(memory.at + 4, true) : memory.u32(at + 4)
      if (lo < 0 || hi < 0) {
        this.level = level + 1
        this.#missing = at
        return OUT_OF_MEMORY
      }
      if ((lo & 1) === 0) return NOT_PRESENT
      const above = (hi & 0xf_ffff) * 2 ** 32 // bits 51:32; NX and software bits lie above
      if (level === 1 || (level <= 3 && (lo & 0x80) !== 0)) { // PS: a leaf, whose bit 12 is PAT
        const within = (1 << (9 * level + 3)) - 1
        return above + ((lo & ~within) >>> 0) + ((low << 12) & within & ~0xfff)
      }
      table = above + ((lo & 0xffff_f000) >>> 0)
    }
    return NOT_PRESENT
  }

  /** Why the last walk that ended so did with `OUT_OF_MEMORY`, as the end of a sentence about its page. */
  get absence(): string {
    return `is mapped by a page table that ${this.memory.absence(this.#missing)}`
  }

  /** The first page behind `page`, at which the last `walk` ended, that is not under the same entry. */
  behind(page: number): number {
    const { span } = this
    return (Math.floor(page / span) + 1) * span
  }

  /** Pages under the entry at which the last `walk` ended. */
  private get span(): number {
    return 2 ** (9 * (this.level - 1))
  }

  /** The first mapped page from `page` on and below `end`, -1 when there is none or it takes more than `steps` steps. */
  nextMapped(page: number, end: number, steps: number): number {
    for (let at = page; at < end && steps > 0; steps--) {
      if (this.walk(at) >= 0) return at
      at = this.behind(at)
    }
    return -1
  }

  /** The last page below `end` and not below `start` that is mapped to `(page - base) * 4096`, or -1 as above. */
  lastIdentity(start: number, end: number, base: number, steps: number): number {
    for (let at = end - 1; at >= start && steps > 0; steps--) {
      const pa = this.walk(at)
      if (pa >= 0 && pa === (at - base) * 4096) return at
      const { span } = this
      at = Math.floor(at / span) * span - 1
    }
    return -1
  }
}

/**
 * Where the kernel maps all physical memory in one piece: the page number of physical address 0, or undefined.
 * It is the lowest thing that the kernel's own tables map, below vmalloc, vmemmap and the image; its start is random and a
 * multiple of 1 GiB. What is found is checked: the tables' root must be mapped at its place in it.
 * @see Documentation/arch/x86/x86_64/mm.rst (page_offset_base); arch/x86/mm/kaslr.c `kernel_randomize_memory`, v6.12
 * @since 0.1.0
 * @category reading
 */
export const findDirectMap = (table: PageTable): number | undefined => {
  const first = table.nextMapped(table.kernelStart, END - 2 ** 19, 4096)
  if (first < 0) return undefined
  const base = first - table.walk(first) / 4096
  if (base < table.kernelStart || base % 2 ** 18 !== 0) return undefined
  return table.walk(base + table.root / 4096) === table.root ? base : undefined
}
