import { type KernelSpace, pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import type { PerCpuCopies } from "../../../memory/structs/PerCpuCopies.ts"
import type { HashTable } from "./HashTable.ts"

/** Buckets per batch. */
const BUCKETS = 64
/** Maximum depth in each chain. */
const DEPTH = 3
/** Capacity of a batch; a table as full as kernels keep theirs has 64 elements in those buckets. */
const PLACES = 512

/**
 * Prefetches the elements of the buckets that a walk comes to next, and the per-CPU copies they point at, which lie
 * anywhere in memory. It takes a tenth or more off the printing of a hash of a million elements.
 */
export class HashPrefetch {
  /** First bucket not prefetched yet. */
  end = 0
  /** Physical addresses. */
  private readonly nodes = new Float64Array(PLACES)
  private readonly values: Float64Array

  constructor(
    private readonly space: KernelSpace,
    private readonly table: HashTable,
    private readonly elementBytes: number,
    private readonly copies: PerCpuCopies | undefined,
    /** From an element's start to its per-CPU pointer. */
    private readonly pointer: number
  ) {
    this.values = new Float64Array(copies === undefined ? 0 : PLACES)
  }

  /** Look at buckets from `bucket` on. */
  look(bucket: number): void {
    const { nodes, space, table } = this
    const { layout } = table
    const { memory } = space
    this.end = Math.min(bucket + BUCKETS, table.bucketCount)
    let count = 0
    for (; bucket < this.end; bucket++) {
      const at = table.bucketsOffset + bucket * layout.bucketSize + layout.bucketFirst
      if (space.window(table.bucketsPage, at, 8)) count = this.add(space.view, space.at, count)
    }
    for (let depth = 0, first = 0; depth < DEPTH && first < count; depth++) {
      const last = count
      memory.prefetch(nodes, first, last, this.elementBytes)
      for (; first < last; first++) {
        if (memory.seek(nodes[first], 8)) count = this.add(memory.view, memory.at, count)
      }
    }
    if (this.copies !== undefined) {
      memory.prefetch(this.values, 0, this.placeCopies(this.copies, count), table.valueSize)
    }
  }

  /** The node that the pointer at `at` leads to, unless it ends a chain; gives how many there are. */
  private add(view: DataView, at: number, count: number): number {
    const offset = pointerOffset(view, at)
    if ((offset & 1) === 1 || count === PLACES) return count
    const place = this.space.translatePage(pointerPage(view, at))
    if (place < 0) return count
    this.nodes[count] = place + offset
    return count + 1
  }

  private placeCopies(copies: PerCpuCopies, nodes: number): number {
    const { memory } = this.space
    let count = 0
    for (let n = 0; n < nodes; n++) {
      if (!memory.seek(this.nodes[n] - this.table.layout.next + this.pointer, 8)) continue
      const page = pointerPage(memory.view, memory.at)
      const offset = pointerOffset(memory.view, memory.at)
      for (let cpu = 0; cpu < copies.cpus && count < PLACES; cpu++) {
        if (copies.isPossible(cpu)) this.values[count++] = copies.place(page, offset, cpu)
      }
    }
    return count
  }
}
