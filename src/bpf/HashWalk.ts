import type { KernelSpace } from "../memory/KernelSpace.ts"
import { type EntryWalk, Trouble } from "./EntryWalk.ts"
import type { PerCpuCopies } from "./PerCpuCopies.ts"

/** Where a hash map's parts lie, in bytes, from the kernel's BTF. */
export interface HashShape {
  /** `sizeof(struct bucket)` (kernel/bpf/hashtab.c) and the offset of its `head.first`. */
  readonly bucketSize: number
  readonly bucketFirst: number
  /** `htab_elem.hash_node.next` and `htab_elem.key`. */
  readonly next: number
  readonly key: number
}

/** One hash map in a guest: `bpf_htab.buckets` as page number and offset, `bpf_htab.n_buckets`, and the map's sizes. */
export interface HashTable {
  readonly bucketsPage: number
  readonly bucketsOffset: number
  readonly bucketCount: number
  readonly keySize: number
  readonly valueSize: number
  /** More elements than this in the chains is a corrupted table. */
  readonly elementLimit: number
}

/** Buckets whose heads are read in one go. */
const GROUP = 32

const roundUp8 = (n: number): number => Math.ceil(n / 8) * 8

/**
 * Every element of a HASH or LRU_HASH and of their per-CPU kinds, bucket by bucket. A chain ends with an odd pointer
 * whose other bits are the bucket's number (include/linux/list_nulls.h). A broken chain is reported and left; the walk
 * goes on with the next bucket. Cycles are found by Brent's algorithm, chains that lead into one another by
 * `elementLimit`.
 * @see kernel/bpf/hashtab.c `struct bpf_htab`, `struct bucket`, `struct htab_elem`, v6.12
 */
export class HashWalk implements EntryWalk {
  keyView: DataView
  keyAt = 0
  valueView: DataView
  valueAt = 0
  readonly trouble = new Trouble()
  private bucket = -1
  private seen = 0
  // The heads of the buckets `groupStart` to `groupEnd`, low and high halves; what was touched of their elements.
  private readonly heads = new Uint32Array(GROUP * 2)
  private groupStart = 0
  private groupEnd = 0
  private touched = 0
  // The pointer to the next element, and Brent's tortoise with its power and step count.
  private lo = 1
  private hi = 0
  private tortoiseLo = 0
  private tortoiseHi = 0
  private power = 1
  private steps = 0
  private readonly valueOffset: number
  private readonly elementBytes: number
  private pointerPage = 0
  private pointerOffset = 0

  constructor(
    private readonly space: KernelSpace,
    private readonly shape: HashShape,
    private readonly table: HashTable,
    private readonly copies: PerCpuCopies | undefined
  ) {
    this.keyView = this.valueView = space.view
    this.valueOffset = shape.key + roundUp8(table.keySize)
    this.elementBytes = this.valueOffset + (copies === undefined ? table.valueSize : 8)
    if (copies !== undefined) this.valueOffset = this.findPointerOffset(copies)
  }

  next(): boolean {
    const { shape, space } = this
    for (;;) {
      while ((this.lo & 1) === 1) {
        if (++this.bucket >= this.table.bucketCount) return false
        this.openBucket()
      }
      if (++this.seen > this.table.elementLimit) {
        this.trouble.add(
          `bucket ${this.bucket}: more elements than the map can hold (${this.table.elementLimit}); walk ended`
        )
        this.bucket = this.table.bucketCount
        this.lo = 1
        return false
      }
      if (!space.window(this.hi * 2 ** 20 + (this.lo >>> 12), this.lo & 4095, this.elementBytes)) {
        this.trouble.add(`bucket ${this.bucket}: element at ${space.faultText}`)
        this.lo = 1
        continue
      }
      const view = space.view
      const at = space.at
      this.keyView = this.valueView = view
      this.keyAt = at + shape.key
      this.valueAt = at + this.valueOffset
      if (this.copies !== undefined) {
        const pointerLo = view.getUint32(this.valueAt, true)
        this.pointerPage = view.getUint32(this.valueAt + 4, true) * 2 ** 20 + (pointerLo >>> 12)
        this.pointerOffset = pointerLo & 4095
      }
      this.lo = view.getUint32(at + shape.next, true)
      this.hi = view.getUint32(at + shape.next + 4, true)
      if (this.lo === this.tortoiseLo && this.hi === this.tortoiseHi) {
        this.trouble.add(`bucket ${this.bucket}: its chain is a cycle`)
        this.lo = 1
      } else if (++this.steps === this.power) {
        this.tortoiseLo = this.lo
        this.tortoiseHi = this.hi
        this.power *= 2
        this.steps = 0
      }
      return true
    }
  }

  value(copy: number): boolean {
    const { copies, space } = this
    if (copies === undefined) return true
    if (!copies.isPossible(copy)) return false
    if (!copies.window(this.pointerPage, this.pointerOffset, copy, this.table.valueSize)) {
      this.trouble.add(`bucket ${this.bucket}, CPU ${copy}: ${space.faultText}`)
      return false
    }
    this.valueView = space.view
    this.valueAt = space.at
    return true
  }

  private openBucket(): void {
    if (this.bucket >= this.groupEnd) this.readHeads()
    const head = (this.bucket - this.groupStart) * 2
    this.lo = this.heads[head]
    this.hi = this.heads[head + 1]
    this.tortoiseLo = this.tortoiseHi = 0
    this.power = 1
    this.steps = 0
  }

  /**
   * Read the chain heads from `bucket` on, and touch the element that each leads to. Elements lie all over memory: this
   * way the processor waits for many of them at once, where the walk alone waits for one after the other. Where the
   * table's page is not there, `bucket` becomes the last one in it, an empty one.
   */
  private readHeads(): void {
    const { heads, shape, space, table } = this
    const at = table.bucketsOffset + this.bucket * shape.bucketSize
    let count = Math.min(GROUP, table.bucketCount - this.bucket)
    if (!space.window(table.bucketsPage, at, count * shape.bucketSize)) {
      count = 1
      if (!space.window(table.bucketsPage, at, shape.bucketSize)) {
        this.trouble.add(`bucket ${this.bucket}: ${space.faultText}`)
        const nextPage = (Math.floor(at / 4096) + 1) * 4096
        this.bucket = Math.max(this.bucket, Math.ceil((nextPage - table.bucketsOffset) / shape.bucketSize) - 1)
        this.groupStart = this.bucket
        this.groupEnd = this.bucket + 1
        heads[0] = 1
        return
      }
    }
    this.groupStart = this.bucket
    this.groupEnd = this.bucket + count
    for (let i = 0; i < count; i++) {
      const first = space.at + i * shape.bucketSize + shape.bucketFirst
      heads[i * 2] = space.view.getUint32(first, true)
      heads[i * 2 + 1] = space.view.getUint32(first + 4, true)
    }
    const { memory } = space
    for (let i = 0; i < count * 2; i += 2) {
      const lo = heads[i]
      if ((lo & 1) === 1) continue
      const pa = space.translatePage(heads[i + 1] * 2 ** 20 + (lo >>> 12))
      if (pa >= 0 && memory.seek(pa + (lo & 4095), 1)) this.touched ^= memory.view.getUint8(memory.at)
    }
  }

  /**
   * Where an element keeps its `__percpu` pointer. `htab_elem_set_ptr` used to store it right behind the key, unaligned
   * for odd key sizes (v6.1: `l->key + key_size`); newer kernels round the key's size up to 8 (v6.12.117:
   * `htab_elem_value`). BTF does not tell them apart, so the first element does: only one of the two places holds a
   * pointer that every possible CPU can follow.
   */
  private findPointerOffset(copies: PerCpuCopies): number {
    const rounded = this.valueOffset
    const unaligned = this.shape.key + this.table.keySize
    if (rounded === unaligned) return rounded
    const probe = new HashWalk(this.space, this.shape, { ...this.table, keySize: roundUp8(this.table.keySize) }, copies)
    for (let tries = 0; tries < 16 && probe.next(); tries++) {
      const element = probe.keyAt - this.shape.key
      const candidates = [unaligned, rounded].map((offset) => readPointer(probe.keyView, element + offset))
      const [old, current] = candidates.map((p) => copies.isPointer(p.page, p.offset, this.table.valueSize))
      if (old !== current) return old ? unaligned : rounded
    }
    return rounded
  }
}

const readPointer = (view: DataView, at: number): { readonly page: number; readonly offset: number } => {
  const lo = view.getUint32(at, true)
  return { page: view.getUint32(at + 4, true) * 2 ** 20 + (lo >>> 12), offset: lo & 4095 }
}
