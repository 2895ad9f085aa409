import * as Either from "effect/Either"
import { bpfHashOffsets, bpfMapOffsets } from "../../../btf/offsets/bpf/BpfMap.ts"
import { formatReason } from "../../../core/Reason.ts"
import type { GuestKernel } from "../../../memory/GuestKernel.ts"
import { isPerCpu, MapType } from "../../MapType.ts"

/** A guest's map as far as writing needs it. */
export interface WriteMap {
  /** The address of its `struct bpf_map`, with which the struct of its type begins. */
  readonly address: bigint
  readonly type: number
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
}

/** Copies of one value in memory: of CPU n at element n of a per-CPU map (undefined: no possible CPU), else one. */
export type Copies = ReadonlyArray<bigint | undefined>

/** Elements looked at before a table is taken for corrupted: more than any guest's memory holds. */
const MOST_ELEMENTS = 2 ** 26

const ARRAYS: ReadonlySet<number> = new Set([MapType.ARRAY, MapType.PERCPU_ARRAY])
const HASHES: ReadonlySet<number> = new Set([
  MapType.HASH,
  MapType.PERCPU_HASH,
  MapType.LRU_HASH,
  MapType.LRU_PERCPU_HASH
])

/** Can values of maps of this type be written where they lie? */
export const isWritable = (type: number): boolean => ARRAYS.has(type) || HASHES.has(type)

/** Does a value stay where it is as long as its map lives? */
export const staysInPlace = (type: number): boolean => ARRAYS.has(type)

/** Where the value of an existing key is; a line says why there is none. */
export const placeOf = (
  kernel: typeof GuestKernel.Service,
  map: WriteMap,
  key: Uint8Array
): Either.Either<Copies, string> =>
  Either.flatMap(
    ARRAYS.has(map.type) ? elementOf(kernel, map, key) : chained(kernel, map, key),
    (value) => isPerCpu(map.type) ? copiesOf(kernel, value) : Either.right([value])
  )

/** @see kernel/bpf/arraymap.c `array_map_lookup_elem`, `struct bpf_array`, v6.12: elements are 8 bytes or a multiple apart */
const elementOf = (
  kernel: typeof GuestKernel.Service,
  { address, maxEntries, type, valueSize }: WriteMap,
  key: Uint8Array
): Either.Either<bigint, string> => {
  const found = bpfMapOffsets.resolve(kernel.btf)
  if (Either.isLeft(found)) return Either.left(found.left.message)
  const index = new DataView(key.buffer, key.byteOffset, key.byteLength).getUint32(0, true)
  if (index >= maxEntries) return Either.left(`it has elements 0 to ${maxEntries - 1}, not ${index}`)
  const step = isPerCpu(type) ? 8 : Math.ceil(valueSize / 8) * 8
  return Either.right(address + BigInt(found.right.array.at.value) + BigInt(index) * BigInt(step))
}

/** @see kernel/bpf/hashtab.c `__htab_map_lookup_elem`, v6.12; all buckets are looked at, for the hash's seed is secret */
const chained = (
  { btf, memory, space }: typeof GuestKernel.Service,
  { address, keySize }: WriteMap,
  key: Uint8Array
): Either.Either<bigint, string> => {
  const found = bpfHashOffsets.resolve(btf)
  if (Either.isLeft(found)) return Either.left(found.left.message)
  const { bucket, element, table } = found.right
  const buckets = space.u64(address + BigInt(table.at.buckets))
  const count = space.u32(address + BigInt(table.at.n_buckets))
  if (buckets === undefined || count < 0) return Either.left(space.faultText)
  if (count * bucket.size > memory.size) return Either.left(`corrupted: ${count} buckets`)
  const wanted = Buffer.from(key)
  let looked = 0
  let trouble: string | undefined
  for (let index = 0; index < count; index++) {
    let node = space.u64(buckets + BigInt(index) * BigInt(bucket.size) + BigInt(bucket.at["head.first"]))
    const seen = new Set<bigint>()
    // an odd pointer ends a chain: include/linux/list_nulls.h
    while (node !== undefined && (node & 1n) === 0n) {
      if (seen.has(node) || looked++ > MOST_ELEMENTS) {
        return Either.left(`corrupted: the chain of bucket ${index} never ends`)
      }
      seen.add(node)
      const start = node - BigInt(element.at["hash_node.next"])
      const there = space.read(start + BigInt(element.at.key), keySize)
      if (there !== undefined && wanted.equals(there)) {
        return Either.right(start + BigInt(element.at.key + Math.ceil(keySize / 8) * 8))
      }
      node = there === undefined ? undefined : space.u64(node)
    }
    if (node === undefined) trouble ??= `bucket ${index}: ${space.faultText}`
  }
  return Either.left(
    trouble === undefined ? "it has no such key" : `the key was not found, and not all can be read: ${trouble}`
  )
}

/** What a slot with a `__percpu` pointer leads to. */
const copiesOf = (kernel: typeof GuestKernel.Service, slot: bigint): Either.Either<Copies, string> => {
  const pointer = kernel.space.u64(slot)
  if (pointer === undefined) return Either.left(kernel.space.faultText)
  if (pointer === 0n) return Either.left("its per-CPU pointer is null")
  if (kernel.perCpuProblem !== undefined) return Either.left(formatReason(kernel.perCpuProblem))
  return Either.right(kernel.perCpuOffsets.map((_, cpu) => kernel.perCpu(pointer, cpu)))
}
