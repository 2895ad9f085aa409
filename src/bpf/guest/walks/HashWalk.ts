import * as Either from "effect/Either"
import { corrupted, type Reason, within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { type KernelSpace, pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import type { PerCpuCopies } from "../../../memory/structs/PerCpuCopies.ts"
import { OBJECT_LIMIT } from "../../../memory/structs/StructReader.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { isPerCpu } from "../../MapType.ts"
import { ElementsAhead } from "./HashPrefetch.ts"
import type { GuestMap, MapOpener } from "./MapReading.ts"

/** Where the parts of chained elements lie, in bytes, from the kernel's BTF. */
export interface HashShape {
  /** `sizeof(struct bucket)` (kernel/bpf/hashtab.c) and the offset of its `head.first`. */
  readonly bucketSize: number
  readonly bucketFirst: number
  /** From an element's start: the node that chains point at, which begins with the pointer to the next one. */
  readonly next: number
  readonly key: number
  /** Undefined in hash maps, which keep the value behind the key. */
  readonly value?: number
  /** What of an element must be readable, if more than these. */
  readonly elementSize?: number
}

/** One table in a guest: its buckets' page number and offset, and the map's sizes. */
export interface HashTable {
  readonly bucketsPage: number
  readonly bucketsOffset: number
  readonly bucketCount: number
  readonly keySize: number
  readonly valueSize: number
  /** More elements than this in the chains is a corrupted table. */
  readonly elementLimit: number
  /**
   * Which pointer ends a chain: undefined an odd one (include/linux/list_nulls.h), 0 null (`struct hlist_head`), else the
   * list's own head (`struct list_head`).
   */
  readonly end: bigint | undefined
}

/** Elements in use beyond `max_entries`: one spare a CPU (kernel/bpf/hashtab.c `extra_elems`, v6.12), with room. */
const SPARE_ELEMENTS = 8192

const roundUp8 = (n: number): number => Math.ceil(n / 8) * 8

/**
 * Every element of a HASH or LRU_HASH and of their per-CPU kinds, bucket by bucket; and of other maps that chain their
 * elements. A broken chain is reported and left; the walk goes on with the next bucket. Cycles are found by Brent's algorithm, chains that lead into one another by
 * `elementLimit`.
 * @see kernel/bpf/hashtab.c `struct bpf_htab`, `struct bucket`, `struct htab_elem`, v6.12
 */
export class HashWalk implements EntryWalk {
  keyView: DataView
  keyAt = 0
  readonly keyLength: number
  valueView: DataView
  valueAt = 0
  readonly valueLength: number
  readonly problems = new WalkProblems()
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
  private readonly endLo: number
  private readonly endHi: number
  private readonly ahead: ElementsAhead | undefined

  constructor(
    private readonly space: KernelSpace,
    private readonly shape: HashShape,
    private readonly table: HashTable,
    private readonly copies: PerCpuCopies | undefined
  ) {
    this.keyView = this.valueView = space.view
    this.keyLength = table.keySize
    this.valueLength = table.valueSize
    this.endLo = table.end === undefined ? -1 : Number(table.end & 0xffff_ffffn)
    this.endHi = table.end === undefined ? -1 : Number(table.end >> 32n)
    this.valueOffset = shape.value ?? shape.key + roundUp8(table.keySize)
    this.elementBytes = Math.max(
      this.valueOffset + (copies === undefined ? table.valueSize : 8),
      shape.key + table.keySize,
      shape.next + 8,
      shape.elementSize ?? 0
    )
    if (copies !== undefined && shape.value === undefined) this.valueOffset = this.findPointerOffset(copies)
    if (copies !== undefined) this.ahead = new ElementsAhead(space, shape, table, copies, this.valueOffset)
  }

  next(): boolean {
    const { shape, space } = this
    for (;;) {
      while ((this.lo & 1) === 1) {
        if (++this.bucket >= this.table.bucketCount) return false
        if (this.ahead !== undefined && this.bucket >= this.ahead.end) this.ahead.look(this.bucket)
        this.openBucket()
      }
      if (++this.seen > this.table.elementLimit) {
        this.problems.add(
          corrupted(
            `bucket ${this.bucket}: more elements than the map can hold (${this.table.elementLimit}); walk ended`
          )
        )
        this.bucket = this.table.bucketCount
        this.lo = 1
        return false
      }
      let page = this.hi * 2 ** 20 + (this.lo >>> 12)
      let offset = (this.lo & 4095) - shape.next
      while (offset < 0) {
        page--
        offset += 4096
      }
      if (!space.window(page, offset, this.elementBytes)) {
        this.problems.add(within(`bucket ${this.bucket}: element`, space.faultReason))
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
      this.follow(view, at + shape.next)
      if (this.lo === this.tortoiseLo && this.hi === this.tortoiseHi) {
        this.problems.add(corrupted(`bucket ${this.bucket}: its chain is a cycle`))
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
      this.problems.add(within(`bucket ${this.bucket}, CPU ${copy}`, space.faultReason))
      return false
    }
    this.valueView = space.view
    this.valueAt = space.at
    return true
  }

  /** Read the pointer to the next element; an end becomes an odd one. */
  private follow(view: DataView, at: number): void {
    this.lo = view.getUint32(at, true)
    this.hi = view.getUint32(at + 4, true)
    if (this.lo === this.endLo && this.hi === this.endHi) this.lo = 1
  }

  /** Read the chain head of `bucket`; where the table's page is not there, `bucket` becomes the last one in it. */
  private openBucket(): void {
    const { shape, space, table } = this
    const at = table.bucketsOffset + this.bucket * shape.bucketSize
    if (space.window(table.bucketsPage, at + shape.bucketFirst, 8)) {
      this.follow(space.view, space.at)
      this.tortoiseLo = this.tortoiseHi = 0
      this.power = 1
      this.steps = 0
      return
    }
    this.problems.add(within(`bucket ${this.bucket}`, space.faultReason))
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

/** What a walk over one map's buckets needs. */
interface Chains {
  readonly shape: HashShape
  readonly table: HashTable
}

/**
 * The table of a map that points at its buckets.
 * @param of.buckets, of.count where the map has the pointer and the number of buckets, or with `isLog` its logarithm
 * @param of.elements the most it can hold; undefined where the map sets no bound
 */
export const bucketsOf = (
  { info: { keySize }, kernel, offset, page, space }: GuestMap,
  of: {
    readonly buckets: number
    readonly count: number
    readonly isLog?: boolean
    readonly elements: number | undefined
    readonly keySize?: number
    readonly valueSize: number
    readonly end: bigint | undefined
    readonly shape: HashShape
  }
): Either.Either<Chains, Reason | { readonly message: string }> => {
  const unreadable = () => Either.left(space.faultReason)
  const keyBytes = of.keySize ?? keySize
  if (!space.window(page, offset + of.buckets, 8)) return unreadable()
  const bucketsPage = pointerPage(space.view, space.at)
  const bucketsOffset = pointerOffset(space.view, space.at)
  if (!space.window(page, offset + of.count, 4)) return unreadable()
  const count = space.view.getUint32(space.at, true)
  const bucketCount = of.isLog === true ? 2 ** count : count
  if (bucketCount * of.shape.bucketSize > kernel.memory.size || keyBytes === 0 || keyBytes > OBJECT_LIMIT) {
    return Either.left(corrupted(`${bucketCount} buckets, keys of ${keyBytes} bytes`))
  }
  // Elements do not overlap: all of them, with their values, are less than the memory.
  const fit = Math.ceil(kernel.memory.size / ((of.shape.value ?? of.shape.key + keyBytes) + of.valueSize))
  const table = {
    bucketsPage,
    bucketsOffset,
    bucketCount,
    keySize: keyBytes,
    valueSize: of.valueSize,
    elementLimit: of.elements === undefined ? fit : Math.min(of.elements + SPARE_ELEMENTS, fit),
    end: of.end
  }
  return Either.right({ shape: of.shape, table })
}

/** The table of a hash map; `valueSize` differs from the map's where it keeps pointers. */
export const hashTableOf = (
  map: GuestMap,
  valueSize: number
): Either.Either<Chains, Reason | { readonly message: string }> =>
  Either.flatMap(map.layouts.hash, ({ bucket, element, table }) =>
    bucketsOf(map, {
      buckets: table.at.buckets,
      count: table.at.n_buckets,
      elements: map.info.maxEntries,
      valueSize,
      end: undefined,
      shape: {
        bucketSize: bucket.size,
        bucketFirst: bucket.at["head.first"],
        next: element.at["hash_node.next"],
        key: element.at.key
      }
    }))

/** HASH, LRU_HASH, PERCPU_HASH, LRU_PERCPU_HASH. */
export const openHash: MapOpener = (map) =>
  Either.map(hashTableOf(map, map.info.valueSize), ({ shape, table }) => ({
    walk: () => new HashWalk(map.space, shape, table, isPerCpu(map.type) ? map.copies : undefined)
  }))
