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

  /** Read the chain head of `bucket`; where the table's page is not there, `bucket` becomes the last one in it. */
  private openBucket(): void {
    const { shape, space, table } = this
    const at = table.bucketsOffset + this.bucket * shape.bucketSize
    if (space.window(table.bucketsPage, at + shape.bucketFirst, 8)) {
      this.lo = space.view.getUint32(space.at, true)
      this.hi = space.view.getUint32(space.at + 4, true)
      this.tortoiseLo = this.tortoiseHi = 0
      this.power = 1
      this.steps = 0
      return
    }
    this.trouble.add(`bucket ${this.bucket}: ${space.faultText}`)
    this.lo = 1
    const nextPage = (Math.floor(at / 4096) + 1) * 4096
    this.bucket = Math.max(this.bucket, Math.ceil((nextPage - table.bucketsOffset) / shape.bucketSize) - 1)
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
