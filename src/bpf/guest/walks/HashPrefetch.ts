import { type KernelSpace, pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import type { PerCpuCopies } from "../../../memory/structs/PerCpuCopies.ts"
import type { HashTable } from "./HashTable.ts"

/** Buckets per batch. */
const BUCKETS = 32
/** Maximum depth in each chain. */
const DEPTH = 4
/** Capacity of a batch; a table as full as kernels keep theirs has 32 elements in those buckets. */
const PLACES = 512

/**
 * Touches the elements of the buckets that a walk comes to next, and the per-CPU copies they point at. They lie anywhere
 * in memory: a walk waits for one after the other, while the loads of a small loop wait together. It takes a tenth off
 * the printing of a per-CPU hash of a million elements; without copies it would gain nothing. What is broken is left to
 * the walk to find.
 */
export class HashPrefetch {
  /** First bucket not prefetched yet. */
  end = 0
  /** Keeps the loads from being optimized away. */
  private sum = 0
  /** Physical addresses. */
  private readonly nodes = new Float64Array(PLACES)
  private readonly values = new Float64Array(PLACES)

  constructor(
    private readonly space: KernelSpace,
    private readonly table: HashTable,
    private readonly copies: PerCpuCopies,
    /** From an element's start to its per-CPU pointer. */
    private readonly pointer: number
  ) {}

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
      this.touch(nodes, first, last)
      for (; first < last; first++) {
        if (memory.seek(nodes[first], 8)) count = this.add(memory.view, memory.at, count)
      }
    }
    this.touch(this.values, 0, this.placeCopies(count))
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

  private placeCopies(nodes: number): number {
    const { copies, space: { memory } } = this
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

  private touch(places: Float64Array, from: number, to: number): void {
    const { memory } = this.space
    let sum = 0
    for (let n = from; n < to; n++) {
      if (memory.seek(places[n], 1)) sum += memory.view.getUint8(memory.at)
    }
    this.sum = (this.sum + sum) | 0
  }
}
