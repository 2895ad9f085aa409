import { type KernelSpace, pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import type { PerCpuCopies } from "../../../memory/structs/PerCpuCopies.ts"
import type { HashTable } from "./HashTable.ts"

/** Buckets per batch. */
const BUCKETS = 64
/** Maximum depth in each chain. */
const DEPTH = 3
/** Capacity of a batch; a table as full as kernels keep theirs has 64 elements in those buckets. */
const PLACES = 512
/** Per-CPU copies of a batch. */
const COPIES = 2048

/**
 * Prefetches the elements of the buckets that a walk comes to next, and the per-CPU copies they point at, which lie
 * anywhere in memory, and keeps what the walk would else look up again: the chains' heads, and where the nodes are.
 */
export class HashPrefetch {
  /** First bucket of the batch. */
  start = 0
  /** First bucket not prefetched yet. */
  end = 0
  /** Of each bucket of the batch: 1 if its head was read … */
  readonly known = new Uint8Array(BUCKETS)
  /** … and the pointer it is. */
  readonly lo = new Uint32Array(BUCKETS)
  readonly hi = new Uint32Array(BUCKETS)
  /** Its first node, an index of `nodes`; -1 if that is not in the batch. */
  readonly first = new Int32Array(BUCKETS)
  /** Physical addresses of the nodes. */
  readonly nodes = new Float64Array(PLACES)
  /** Of each node the next one in its chain, as in `first`. */
  readonly next = new Int32Array(PLACES)
  /** Physical addresses of the copies, those of a node side by side; negative where one cannot be read. */
  readonly values: Float64Array

  constructor(
    private readonly space: KernelSpace,
    private readonly table: HashTable,
    private readonly elementBytes: number,
    private readonly copies: PerCpuCopies | undefined,
    /** From an element's start to its per-CPU pointer. */
    private readonly pointer: number
  ) {
    this.values = new Float64Array(copies === undefined ? 0 : Math.min(PLACES * copies.cpus, COPIES))
  }

  /** Look at buckets from `bucket` on. */
  look(bucket: number): void {
    const { nodes, space, table } = this
    const { memory } = space
    this.start = bucket
    this.end = Math.min(bucket + BUCKETS, table.bucketCount)
    this.readHeads(bucket)
    let count = 0
    for (let index = 0; bucket < this.end; bucket++, index++) {
      const before = count
      if (this.known[index] === 1) count = this.add(this.lo[index], this.hi[index], count)
      this.first[index] = count > before ? before : -1
    }
    let node = 0
    for (let depth = 0; depth < DEPTH && node < count; depth++) {
      const last = count
      memory.prefetch(nodes, node, last, this.elementBytes)
      for (; node < last; node++) {
        const before = count
        if (memory.seek(nodes[node], 8)) {
          const { at, view } = memory
          count = this.add(view.getUint32(at, true), view.getUint32(at + 4, true), count)
        }
        this.next[node] = count > before ? before : -1
      }
    }
    this.next.fill(-1, node, count)
    if (this.copies !== undefined) {
      memory.prefetch(this.values, 0, this.placeCopies(this.copies, count), table.valueSize)
    }
  }

  /** Read the heads of the batch: all at once, or one by one where some of them are not there. */
  private readHeads(bucket: number): void {
    const { space, table } = this
    const { bucketFirst, bucketSize } = table.layout
    const at = table.bucketsOffset + bucket * bucketSize + bucketFirst
    const count = this.end - bucket
    if (space.window(table.bucketsPage, at, (count - 1) * bucketSize + 8)) {
      for (let index = 0; index < count; index++) this.keep(index, space.view, space.at + index * bucketSize)
      return
    }
    for (let index = 0; index < count; index++) {
      this.known[index] = 0
      if (space.window(table.bucketsPage, at + index * bucketSize, 8)) this.keep(index, space.view, space.at)
    }
  }

  private keep(index: number, view: DataView, at: number): void {
    this.known[index] = 1
    this.lo[index] = view.getUint32(at, true)
    this.hi[index] = view.getUint32(at + 4, true)
  }

  /** The node that a pointer leads to, unless it ends a chain; gives how many there are. */
  private add(lo: number, hi: number, count: number): number {
    if ((lo & 1) === 1 || count === PLACES) return count
    const place = this.space.translatePage(hi * 2 ** 20 + (lo >>> 12))
    if (place < 0) return count
    this.nodes[count] = place + (lo & 4095)
    return count + 1
  }

  /** Gives how many places there are. */
  private placeCopies(copies: PerCpuCopies, nodes: number): number {
    const { values } = this
    const { memory } = this.space
    const { cpus } = copies
    const count = Math.min(nodes * cpus, values.length)
    for (let node = 0, place = 0; place < count; node++) {
      const found = memory.seek(this.nodes[node] - this.table.layout.next + this.pointer, 8)
      const page = found ? pointerPage(memory.view, memory.at) : 0
      const offset = found ? pointerOffset(memory.view, memory.at) : 0
      for (let cpu = 0; cpu < cpus && place < count; cpu++) {
        values[place++] = found && copies.isPossible(cpu) ? copies.place(page, offset, cpu) : -1
      }
    }
    return count
  }
}
