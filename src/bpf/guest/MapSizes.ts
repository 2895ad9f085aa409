import * as Either from "effect/Either"
import { layout } from "../../btf/Layout.ts"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { kvaFrom } from "../../core/Address.ts"
import { corrupted, type Reason } from "../../core/Reason.ts"
import { isPerCpu, MapType } from "../MapType.ts"
import type { GuestMap } from "./walks/GuestMap.ts"
import { roundUp8 } from "./walks/HashTable.ts"

/**
 * `KMALLOC_MAX_SIZE` by the size of a page, which arm64 has 3 of: what is allocated an element at a time is smaller, in bytes.
 * @see include/linux/slab.h, arch/arm64/Kconfig `ARCH_FORCE_MAX_ORDER`, v6.1 to v6.18
 */
const ELEMENT_LIMIT = new Map([[4096, 2 ** 22], [16384, 2 ** 25], [65536, 2 ** 29]])

const POINTER_ARRAYS: ReadonlySet<number> = new Set([
  MapType.PROG_ARRAY,
  MapType.PERF_EVENT_ARRAY,
  MapType.CGROUP_ARRAY,
  MapType.ARRAY_OF_MAPS
])
const HASHES: ReadonlySet<number> = new Set([
  MapType.HASH,
  MapType.LRU_HASH,
  MapType.PERCPU_HASH,
  MapType.LRU_PERCPU_HASH,
  MapType.HASH_OF_MAPS
])
/** Types whose values are descriptors: 4 bytes, or 8 with what goes with one. */
const DESCRIPTORS: ReadonlySet<number> = new Set([
  ...POINTER_ARRAYS,
  MapType.HASH_OF_MAPS,
  MapType.DEVMAP,
  MapType.DEVMAP_HASH,
  MapType.CPUMAP,
  MapType.XSKMAP,
  MapType.SOCKMAP,
  MapType.SOCKHASH,
  MapType.REUSEPORT_SOCKARRAY
])
const VALUELESS: ReadonlySet<number> = new Set([MapType.RINGBUF, MapType.USER_RINGBUF, MapType.ARENA])

/** include/linux/bpf.h `struct bpf_array`; kernel/bpf/hashtab.c `struct bpf_htab`, `struct htab_elem`; v6.1 to v6.18 */
const arrayLayout = memoizeByBtf((btf) => layout(btf, "bpf_array", ["elem_size", "index_mask"]))
const tableLayout = memoizeByBtf((btf) => layout(btf, "bpf_htab", ["elem_size", "n_buckets"]))
const elementLayout = memoizeByBtf((btf) => layout(btf, "htab_elem", ["key"]))

/** Is `power` the number rounded up to a power of two? */
const isRounded = (n: number, power: number): boolean => power >= n && power < n * 2 && (power & (power - 1)) === 0

/**
 * The problem with the sizes and counts that a map claims; undefined if there is none. The kernel writes most of them
 * down twice: where the two disagree, a walk would show whatever lies there as entries. Sizes that no kernel makes, or
 * that do not fit into the memory, are reported too.
 * @see kernel/bpf/arraymap.c `array_map_alloc`, kernel/bpf/hashtab.c `htab_map_alloc`, v6.1 to v6.18
 */
export const sizeProblem = (
  { info, kernel, offset, page, space, type }: Pick<GuestMap, "info" | "kernel" | "offset" | "page" | "space" | "type">
): Reason | undefined => {
  const { keySize, maxEntries, valueSize } = info
  const read = (field: number): number => space.u32(kvaFrom(page, offset + field))
  const claim = `${maxEntries} elements, keys of ${keySize} bytes, values of ${valueSize}`
  const isArray = type === MapType.ARRAY || type === MapType.PERCPU_ARRAY
  if (
    VALUELESS.has(type) !== (valueSize === 0) || (DESCRIPTORS.has(type) && valueSize > 8)
    || keySize + (isArray ? 0 : valueSize) > (ELEMENT_LIMIT.get(space.table.pageSize) ?? 0)
  ) return corrupted(`${claim}`)
  if (isArray || POINTER_ARRAYS.has(type)) {
    if (maxEntries * (isPerCpu(type) ? 8 : roundUp8(valueSize)) > kernel.memory.size) {
      return corrupted(`${claim} do not fit the guest's memory`)
    }
    const array = Either.getOrUndefined(arrayLayout(kernel.btf))
    if (array === undefined) return undefined
    const elementSize = read(array.at.elem_size)
    const mask = read(array.at.index_mask)
    if (elementSize < 0 || mask < 0) return space.faultReason
    return elementSize === roundUp8(valueSize) && isRounded(maxEntries, mask + 1)
      ? undefined
      : corrupted(`${claim}, but room for elements of ${elementSize} bytes up to ${mask}`)
  }
  if (HASHES.has(type)) {
    const table = Either.getOrUndefined(tableLayout(kernel.btf))
    const element = Either.getOrUndefined(elementLayout(kernel.btf))
    if (table === undefined || element === undefined) return undefined
    const elementSize = read(table.at.elem_size)
    const buckets = read(table.at.n_buckets)
    if (elementSize < 0 || buckets < 0) return space.faultReason
    const needed = element.size + roundUp8(keySize) + (isPerCpu(type) ? 8 : roundUp8(valueSize))
    return elementSize === needed && isRounded(maxEntries, buckets)
      ? undefined
      : corrupted(`${claim}, but ${buckets} buckets for elements of ${elementSize} bytes`)
  }
  return undefined
}
