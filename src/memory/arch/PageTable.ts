import type { GuestMemory } from "../GuestMemory.ts"

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
 * The architectures whose kernels are read.
 *
 * @since 0.1.0
 * @category models
 */
export type ArchName = "x86-64" | "arm64"

/**
 * The shape of page tables.
 *
 * @since 0.1.0
 * @category models
 */
export interface PageTableShape {
  readonly arch: ArchName
  /** Bits of an address within a page of the kernel. A table is one page, of entries of 8 bytes. */
  readonly pageBits: number
  readonly levels: number
  /** Bits of an address that the root's entries are counted by. */
  readonly rootBits: number
  /** Bits of an address below those that are all ones in the kernel's half. */
  readonly kernelBits: number
}

/**
 * The page tables under one root, by page number: address / 4096 whatever the kernel's own pages are, exact in a double.
 * Hot: numbers in and out, nothing allocated, no exceptions.
 *
 * @since 0.1.0
 * @category models
 */
export abstract class PageTable {
  /**
   * The level of the entry at which the last `walk` ended: 1 for a page, more for a larger leaf, or where nothing was; of an
   * entry whose table the image lacks, that entry's (of the root, one more than there are levels).
   */
  level = 0
  /** The physical address of the entry that the last walk which ended with `OUT_OF_MEMORY` could not read. */
  #missing = 0
  readonly arch: ArchName
  /** Bytes of the kernel's own pages. */
  readonly pageSize: number
  readonly levels: number
  /** The lowest page number of the kernel's half. */
  readonly kernelStart: number
  /** By level, pages of 4096 under an entry. */
  readonly #spans: Float64Array
  readonly #mask: number
  readonly #rootMask: number

  /** `root` is the physical address of the first table, in bytes. */
  constructor(
    readonly memory: GuestMemory,
    readonly root: number,
    { arch, kernelBits, levels, pageBits, rootBits }: PageTableShape
  ) {
    this.arch = arch
    this.pageSize = 2 ** pageBits
    this.levels = levels
    this.kernelStart = END - 2 ** (kernelBits - 12)
    this.#spans = Float64Array.from(
      { length: levels + 2 },
      (_, level) => 2 ** (pageBits - 12 + (pageBits - 3) * (level - 1))
    )
    this.#mask = 2 ** (pageBits - 3) - 1
    this.#rootMask = 2 ** rootBits - 1
  }

  /** Whether an entry that is there maps memory itself; undefined where its kind is reserved at its level. */
  protected abstract isLeaf(low: number, level: number): boolean | undefined

  /** The physical address in an entry, of which the low and the high 32 bits are given; a leaf may have flags below its size. */
  protected abstract target(low: number, high: number): number

  /** The physical byte address of a kernel page, which the image need not have; or `NOT_PRESENT`, `OUT_OF_MEMORY`. */
  walk(page: number): number {
    if (!(page >= this.kernelStart && page < END)) return NOT_PRESENT
    const { memory } = this
    let table = this.root
    for (let level = this.levels; level > 0; level--) {
      this.level = level
      const span = this.#spans[level]
      const index = Math.floor(page / span) & (level === this.levels ? this.#rootMask : this.#mask)
      const at = table + index * 8
      const whole = memory.seek(at, 8)
      const low = whole ? memory.view.getUint32(memory.at, true) : memory.u32(at)
      const high = whole ? memory.view.getUint32(memory.at + 4, true) : memory.u32(at + 4)
      if (low < 0 || high < 0) {
        this.level = level + 1
        this.#missing = at
        return OUT_OF_MEMORY
      }
      if ((low & 1) === 0) return NOT_PRESENT
      const isLeaf = this.isLeaf(low, level)
      if (isLeaf === undefined) return NOT_PRESENT
      const target = this.target(low, high)
      if (isLeaf) return (Math.floor(target / (span * 4096)) * span + page - Math.floor(page / span) * span) * 4096
      table = target
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
    return this.#spans[this.level]
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

/** Entries of the tables that lead to the lowest page: at most four levels of 8192. */
const MOST_STEPS = 2 ** 15
/** The start of the mapping of all memory is a multiple of this, in pages: 512 MiB on arm64 with pages of 64 KiB, else 1 GiB. */
const DIRECT_STEP = 2 ** 17

/**
 * Where the kernel maps all physical memory in one piece: the page number of physical address 0, which on arm64 may itself
 * lie below the kernel's half, or undefined. It is the lowest thing that the kernel's own tables map, below vmalloc, vmemmap
 * and the image; its start is random. What is found is checked: the tables' root must be mapped at its place in it.
 * @see Documentation/arch/x86/x86_64/mm.rst (page_offset_base); arch/x86/mm/kaslr.c `kernel_randomize_memory`;
 * arch/arm64/mm/init.c `arm64_memblock_init`, arch/arm64/include/asm/kernel-pgtable.h `ARM64_MEMSTART_ALIGN`, v6.12
 * @since 0.1.0
 * @category reading
 */
export const findDirectMap = (table: PageTable): number | undefined => {
  const first = table.nextMapped(table.kernelStart, END - 2 ** 19, MOST_STEPS)
  if (first < 0) return undefined
  const base = first - table.walk(first) / 4096
  if (base < 0 || base % DIRECT_STEP !== 0) return undefined
  return table.walk(base + table.root / 4096) === table.root ? base : undefined
}
