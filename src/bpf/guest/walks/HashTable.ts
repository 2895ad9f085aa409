import * as Either from "effect/Either"
import { corrupted, type Reason } from "../../../core/Reason.ts"
import { pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import { OBJECT_LIMIT } from "../../../memory/structs/StructReader.ts"
import type { GuestMap } from "./GuestMap.ts"

/** Where the parts of chained elements lie, in bytes, from the kernel's BTF. */
export interface HashLayout {
  /** `sizeof(struct bucket)` (kernel/bpf/hashtab.c) and the offset of its `head.first`. */
  readonly bucketSize: number
  readonly bucketFirst: number
  /** From an element's start: the node that chains point at, which begins with the pointer to the next one. */
  readonly next: number
  readonly key: number
  /** Undefined in hash maps, which keep the value behind the key. */
  readonly value?: number
  /** Bytes of an element that must be readable, if more than key and value. */
  readonly elementSize?: number
}

/** One table in a guest: its layout, its buckets' page number and offset, and the map's sizes. */
export interface HashTable {
  readonly layout: HashLayout
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

/** Elements in use beyond `max_entries`: one spare a CPU (kernel/bpf/hashtab.c `extra_elems`, v6.12), with a margin. */
const SPARE_ELEMENTS = 8192

/** Kernel structures are laid out in 64-bit words. */
export const roundUp8 = (n: number): number => Math.ceil(n / 8) * 8

/**
 * The table of a map that points at its buckets.
 * @param of.buckets, of.count where the map has the pointer and the number of buckets, or with `isLog` its logarithm
 * @param of.elements the most it can hold; undefined where the map sets no bound
 */
export const readHashTable = (
  { info: { keySize }, kernel, offset, page, space }: GuestMap,
  of: {
    readonly buckets: number
    readonly count: number
    readonly isLog?: boolean
    readonly elements: number | undefined
    readonly keySize?: number
    readonly valueSize: number
    readonly end: bigint | undefined
    readonly layout: HashLayout
  }
): Either.Either<HashTable, Reason | { readonly message: string }> => {
  const unreadable = () => Either.left(space.faultReason)
  const keyBytes = of.keySize ?? keySize
  if (!space.window(page, offset + of.buckets, 8)) return unreadable()
  const bucketsPage = pointerPage(space.view, space.at)
  const bucketsOffset = pointerOffset(space.view, space.at)
  if (!space.window(page, offset + of.count, 4)) return unreadable()
  const count = space.view.getUint32(space.at, true)
  const bucketCount = of.isLog === true ? 2 ** count : count
  if (bucketCount * of.layout.bucketSize > kernel.memory.size || keyBytes === 0 || keyBytes > OBJECT_LIMIT) {
    return Either.left(corrupted(`${bucketCount} buckets, keys of ${keyBytes} bytes`))
  }
  // Elements do not overlap: all of them, with their values, are less than the memory.
  const fit = Math.ceil(kernel.memory.size / ((of.layout.value ?? of.layout.key + keyBytes) + of.valueSize))
  return Either.right({
    layout: of.layout,
    bucketsPage,
    bucketsOffset,
    bucketCount,
    keySize: keyBytes,
    valueSize: of.valueSize,
    elementLimit: of.elements === undefined ? fit : Math.min(of.elements + SPARE_ELEMENTS, fit),
    end: of.end
  })
}

/** The `struct bpf_htab` of a hash map; `valueSize` differs from the map's where it keeps pointers. */
export const readHtab = (
  map: GuestMap,
  valueSize: number
): Either.Either<HashTable, Reason | { readonly message: string }> =>
  Either.flatMap(map.layouts.hash, ({ bucket, element, table }) =>
    readHashTable(map, {
      buckets: table.at.buckets,
      count: table.at.n_buckets,
      elements: map.info.maxEntries,
      valueSize,
      end: undefined,
      layout: {
        bucketSize: bucket.size,
        bucketFirst: bucket.at["head.first"],
        next: element.at["hash_node.next"],
        key: element.at.key
      }
    }))
