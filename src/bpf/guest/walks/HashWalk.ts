import * as Either from "effect/Either"
import { absent, corrupted, type Reason, within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { type KernelSpace, pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import { openSharedSpace, type SharedSpace, sharedSpace } from "../../../memory/SharedSpace.ts"
import { PerCpuCopies } from "../../../memory/structs/PerCpuCopies.ts"
import type { PlacedWalk } from "../../EntryWalk.ts"
import { isPerCpu } from "../../MapType.ts"
import type { MapOpener, ValuePlaces } from "./GuestMap.ts"
import { HashPrefetch } from "./HashPrefetch.ts"
import { type HashLayout, type HashTable, readHtab, roundUp8 } from "./HashTable.ts"

/**
 * Every element of a HASH or LRU_HASH and of their per-CPU kinds, bucket by bucket; and of other maps that chain their
 * elements. A broken chain is reported and left; the walk goes on with the next bucket. Cycles are found by Brent's
 * algorithm, chains that lead into one another by `elementLimit`.
 * @see kernel/bpf/hashtab.c `struct bpf_htab`, `struct bucket`, `struct htab_elem`, v6.12
 */
export class HashWalk implements PlacedWalk {
  keyView: DataView
  keyAt = 0
  readonly keyLength: number
  valueView: DataView
  valueAt = 0
  readonly valueLength: number
  readonly problems = new WalkProblems()
  /** The last bucket that was opened. */
  private bucket = -1
  /** The walk ends before this one. */
  private end: number
  private seen = 0
  // The pointer to the next element, and Brent's tortoise with its power and step count.
  private lo = 1
  private hi = 0
  /** The element that the pointer leads to, where it is in the batch that was prefetched; else -1. */
  private node = -1
  /** Where the batch has the copies of the element that the walk stands at; -1 where it has none. */
  private values = -1
  private tortoiseLo = 0
  private tortoiseHi = 0
  private power = 1
  private steps = 0
  private readonly layout: HashLayout
  private readonly valueOffset: number
  private readonly elementBytes: number
  private pointerPage = 0
  private pointerOffset = 0
  private readonly endLo: number
  private readonly endHi: number
  private readonly ahead: HashPrefetch

  constructor(
    private readonly space: KernelSpace,
    private readonly table: HashTable,
    private readonly copies: PerCpuCopies | undefined
  ) {
    const { layout } = table
    this.layout = layout
    this.end = table.bucketCount
    this.keyView = this.valueView = space.view
    this.keyLength = table.keySize
    this.valueLength = table.valueSize
    this.endLo = table.end === undefined ? -1 : Number(table.end & 0xffff_ffffn)
    this.endHi = table.end === undefined ? -1 : Number(table.end >> 32n)
    this.valueOffset = layout.value ?? layout.key + roundUp8(table.keySize)
    this.elementBytes = Math.max(
      this.valueOffset + (copies === undefined ? table.valueSize : 8),
      layout.key + table.keySize,
      layout.next + 8,
      layout.elementSize ?? 0
    )
    if (copies !== undefined && layout.value === undefined) this.valueOffset = this.findPointerOffset(copies)
    this.ahead = new HashPrefetch(space, table, this.elementBytes, copies, this.valueOffset)
  }

  next(): boolean {
    const { layout, space } = this
    for (;;) {
      while ((this.lo & 1) === 1) {
        if (this.place >= this.end) return false
        if (++this.bucket >= this.ahead.end) this.ahead.look(this.bucket)
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
      if (!this.window()) {
        this.problems.add(within(`bucket ${this.bucket}: element`, space.faultReason))
        this.lo = 1
        continue
      }
      const view = space.view
      const at = space.at
      this.keyView = this.valueView = view
      this.keyAt = at + layout.key
      this.valueAt = at + this.valueOffset
      if (this.copies !== undefined) {
        this.pointerPage = pointerPage(view, this.valueAt)
        this.pointerOffset = pointerOffset(view, this.valueAt)
      }
      this.follow(view, at + layout.next)
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

  get places(): number {
    return this.table.bucketCount
  }

  get place(): number {
    return this.bucket + 1
  }

  narrow(from: number, to: number, seen = this.seen): void {
    this.bucket = from - 1
    this.end = to
    this.seen = seen
    this.lo = 1 // at the end of a chain
    this.ahead.end = 0 // another batch
  }

  skip(to: number, entries: number): boolean {
    if (this.seen + entries > this.table.elementLimit) return false
    this.narrow(to, to, this.seen + entries)
    return true
  }

  /**
   * Make the element that the pointer leads to readable at `space.view`, `space.at`. The batch spares its translation; where
   * memory goes on running, the batch may be older than the pointer by as long as it takes to write its elements.
   */
  private window(): boolean {
    const { ahead, elementBytes, layout, node, space } = this
    const inPage = (this.lo & 4095) - layout.next
    this.values = -1
    if (node >= 0) {
      this.node = ahead.next[node]
      if (this.copies !== undefined) this.values = node * this.copies.cpus
      if (
        inPage >= 0 && inPage + elementBytes <= 4096
        && space.windowAt(ahead.nodes[node] - layout.next, elementBytes)
      ) return true
    }
    let page = this.hi * 2 ** 20 + (this.lo >>> 12)
    let offset = inPage
    while (offset < 0) {
      page--
      offset += 4096
    }
    return space.window(page, offset, elementBytes)
  }

  /** The same of a per-CPU copy, by its index in the batch. */
  private windowOfCopy(index: number): boolean {
    const { ahead: { values }, space, valueLength } = this
    if (index >= values.length) return false
    const place = values[index]
    return place >= 0 && place % 4096 + valueLength <= 4096 && space.windowAt(place, valueLength)
  }

  value(copy: number): boolean {
    const { copies, space } = this
    if (copies === undefined) return true
    if (!copies.isPossible(copy)) return false
    if (this.values >= 0 && this.windowOfCopy(this.values + copy)) {
      this.valueView = space.view
      this.valueAt = space.at
      return true
    }
    if (!copies.window(this.pointerPage, this.pointerOffset, copy, this.table.valueSize)) {
      this.problems.add(within(`bucket ${this.bucket}, CPU ${copy}`, space.faultReason))
      return false
    }
    this.valueView = space.view
    this.valueAt = space.at
    return true
  }

  /** Where the value of a key lies, or why it is not found. All buckets are looked at, since the hash's seed is secret. */
  find(key: Uint8Array): Either.Either<ValuePlaces, Reason> {
    const wanted = Buffer.from(key)
    for (;;) {
      const { bucket, hi, lo } = this
      if (!this.next()) break
      const { buffer, byteOffset } = this.keyView
      if (!wanted.equals(new Uint8Array(buffer, byteOffset + this.keyAt, this.keyLength))) continue
      if (this.copies !== undefined) return this.copies.places(this.pointerPage, this.pointerOffset)
      // An entry's place is not kept: the entry is the one that was next, or its bucket's first.
      return (lo & 1) === 0 && bucket === this.bucket ? this.placeIn(hi, lo) : this.placeOfFirst()
    }
    const { reason } = this.problems
    return Either.left(
      reason === null
        ? absent("it has no such key")
        : within("the key was not found, but not every entry can be read", reason)
    )
  }

  private placeOfFirst(): Either.Either<ValuePlaces, Reason> {
    this.openBucket()
    return (this.lo & 1) === 0 ? this.placeIn(this.hi, this.lo) : Either.left(this.space.faultReason)
  }

  /** The value in the element whose node is at a pointer. */
  private placeIn(hi: number, lo: number): Either.Either<ValuePlaces, Reason> {
    return Either.right([(BigInt(hi) << 32n) + BigInt(lo) + BigInt(this.valueOffset - this.layout.next)])
  }

  /** Read the pointer to the next element; an end becomes an odd one. */
  private follow(view: DataView, at: number): void {
    this.point(view.getUint32(at, true), view.getUint32(at + 4, true))
  }

  private point(lo: number, hi: number): void {
    this.lo = lo === this.endLo && hi === this.endHi ? 1 : lo
    this.hi = hi
  }

  /** Read the chain head of `bucket`; where the table's page is not there, `bucket` becomes the last one in it. */
  private openBucket(): void {
    const { ahead, layout, space, table } = this
    const index = this.bucket - ahead.start
    this.tortoiseLo = this.tortoiseHi = 0
    this.power = 1
    this.steps = 0
    if (ahead.known[index] === 1) {
      this.node = ahead.first[index]
      this.point(ahead.lo[index], ahead.hi[index])
      return
    }
    const at = table.bucketsOffset + this.bucket * layout.bucketSize
    this.node = -1
    if (space.window(table.bucketsPage, at + layout.bucketFirst, 8)) return this.follow(space.view, space.at)
    this.problems.add(within(`bucket ${this.bucket}`, space.faultReason))
    this.lo = 1
    const nextPage = (Math.floor(at / 4096) + 1) * 4096
    this.bucket = Math.max(this.bucket, Math.ceil((nextPage - table.bucketsOffset) / layout.bucketSize) - 1)
  }

  /**
   * Where an element keeps its `__percpu` pointer. `htab_elem_set_ptr` used to store it right behind the key, unaligned
   * for odd key sizes (v6.1: `l->key + key_size`); newer kernels round the key's size up to 8 (v6.12.117:
   * `htab_elem_value`). BTF does not tell them apart, so the first element does: only one of the two places holds a
   * pointer that every possible CPU can follow.
   */
  private findPointerOffset(copies: PerCpuCopies): number {
    const rounded = this.valueOffset
    const unaligned = this.layout.key + this.table.keySize
    if (rounded === unaligned) return rounded
    const probe = new HashWalk(this.space, { ...this.table, keySize: roundUp8(this.table.keySize) }, copies)
    for (let tries = 0; tries < 16 && probe.next(); tries++) {
      const element = probe.keyAt - this.layout.key
      const [old, current] = [unaligned, rounded].map((offset) => {
        const at = element + offset
        return copies.isPointer(pointerPage(probe.keyView, at), pointerOffset(probe.keyView, at), this.table.valueSize)
      })
      if (old !== current) return old ? unaligned : rounded
    }
    return rounded
  }
}

/** The plain data that another thread makes the walk of a hash map of. */
export interface SharedHash {
  readonly space: SharedSpace
  readonly table: HashTable
  /** Undefined: its values are not per CPU. */
  readonly perCpuOffsets: ReadonlyArray<bigint | undefined> | undefined
}

/** The walk of a hash map, in another thread than its map's. */
export const sharedHashWalk = ({ perCpuOffsets, space, table }: SharedHash): HashWalk => {
  const cursor = openSharedSpace(space)
  return new HashWalk(cursor, table, perCpuOffsets === undefined ? undefined : new PerCpuCopies(cursor, perCpuOffsets))
}

/** HASH, LRU_HASH, PERCPU_HASH, LRU_PERCPU_HASH. */
export const openHash: MapOpener = (map) =>
  Either.map(readHtab(map, map.info.valueSize), (table) => {
    const perCpu = isPerCpu(map.type)
    const walk = () => new HashWalk(map.space, table, perCpu ? map.copies : undefined)
    const elsewhere = (): SharedHash | undefined => {
      const space = sharedSpace(map.space)
      return space && { space, table, perCpuOffsets: perCpu ? map.kernel.perCpuOffsets : undefined }
    }
    return { walk, elsewhere, find: (key) => walk().find(key) }
  })
