import * as Either from "effect/Either"
import { kvaFrom } from "../../core/Address.ts"
import { corrupted, type Reason } from "../../core/Reason.ts"
import type { KernelSpace } from "../KernelSpace.ts"

const PAGES = 2 ** 52

/**
 * The copies of a per-CPU allocation. A `__percpu` pointer is not an address: CPU n's copy is at the pointer plus
 * `__per_cpu_offset[n]`, modulo 2^64.
 * @see include/linux/percpu-defs.h `per_cpu_ptr`, v6.12
 */
export class PerCpuCopies {
  private readonly pages: Float64Array
  private readonly offsets: Int32Array

  private readonly space: KernelSpace

  /** `perCpuOffsets[n]` is `__per_cpu_offset[n]`; undefined for a number that is not a possible CPU's. */
  constructor(space: KernelSpace, perCpuOffsets: ReadonlyArray<bigint | undefined>) {
    this.space = space
    this.pages = Float64Array.from(perCpuOffsets, (o) => o === undefined ? -1 : Number(BigInt.asUintN(64, o) >> 12n))
    this.offsets = Int32Array.from(perCpuOffsets, (o) => o === undefined ? 0 : Number(o & 0xfffn))
  }

  /** One more than the highest possible CPU number. */
  get cpus(): number {
    return this.pages.length
  }

  isPossible(cpu: number): boolean {
    return cpu < this.pages.length && this.pages[cpu] >= 0
  }

  /** Make `length` bytes of a CPU's copy readable at `space.view`, `space.at`. */
  window(page: number, offset: number, cpu: number, length: number): boolean {
    const sum = offset + this.offsets[cpu]
    return this.space.window(this.pageOf(page, sum, cpu), sum & 4095, length)
  }

  /** The addresses of the copies by CPU, undefined where one is not possible. */
  places(page: number, offset: number): Either.Either<ReadonlyArray<bigint | undefined>, Reason> {
    if (page === 0 && offset === 0) return Either.left(corrupted("its per-CPU pointer is null"))
    return Either.right(Array.from(this.pages, (_, cpu) => {
      const sum = offset + this.offsets[cpu]
      return this.isPossible(cpu) ? kvaFrom(this.pageOf(page, sum, cpu), sum & 4095) : undefined
    }))
  }

  /** The physical address where a CPU's copy begins; negative where it is not mapped. */
  place(page: number, offset: number, cpu: number): number {
    const sum = offset + this.offsets[cpu]
    const pa = this.space.translatePage(this.pageOf(page, sum, cpu))
    return pa < 0 ? pa : pa + (sum & 4095)
  }

  private pageOf(page: number, sum: number, cpu: number): number {
    const at = page + this.pages[cpu] + (sum >>> 12)
    return at < PAGES ? at : at - PAGES
  }

  /** Does `pointer` look like a per-CPU pointer: aligned, not null, and every possible CPU's copy is mapped? */
  isPointer(page: number, offset: number, length: number): boolean {
    if ((page === 0 && offset === 0) || (offset & 7) !== 0) return false
    for (let cpu = 0; cpu < this.pages.length; cpu++) {
      if (this.isPossible(cpu) && !this.window(page, offset, cpu, length)) return false
    }
    return true
  }
}
