import * as Either from "effect/Either"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { localStorageOffsets } from "../../../btf/offsets/bpf/LocalStorage.ts"
import type { RenderedValue } from "../../../btf/render/RenderedValue.ts"
import { kvaFrom } from "../../../core/Address.ts"
import { corrupted } from "../../../core/Reason.ts"
import { OBJECT_LIMIT } from "../../../memory/structs/StructReader.ts"
import { isPerCpu, MapType } from "../../MapType.ts"
import { derivedCodec, intOf, missing, objectOf } from "../../values/DerivedCodec.ts"
import type { GuestMap, MapOpener } from "./GuestMap.ts"
import { readHashTable } from "./HashTable.ts"
import { HashWalk } from "./HashWalk.ts"
import { PointerSlotWalk } from "./PointerSlotWalk.ts"

const localStorageLayouts = memoizeByBtf((btf) => localStorageOffsets.resolve(btf))

const cgroupStorageLayouts = memoizeByBtf((btf) =>
  Either.gen(function*() {
    return {
      table: yield* layout(btf, "bpf_cgroup_storage_map", ["list"]),
      element: yield* layout(btf, "bpf_cgroup_storage", ["buf", "percpu_buf", "key", "list_map"]),
      buffer: yield* layout(btf, "bpf_storage_buffer", ["data"])
    }
  })
)

/** Who has the value, by the address of its owner. */
const ownerOf = ({ objects, type }: GuestMap, address: bigint): RenderedValue => {
  switch (type) {
    case MapType.TASK_STORAGE:
      return objects.task(address)
    case MapType.SK_STORAGE:
      return objects.socket(address)
    case MapType.INODE_STORAGE:
      return objects.inode(address)
    default:
      return objects.cgroup(address)
  }
}

/**
 * TASK_, SK_, INODE_ and CGRP_STORAGE: the key is the owner. bpf(2) takes a file descriptor of it for a key, which means
 * nothing here: the key's bytes are the address of the owner's `struct bpf_local_storage`.
 * @see include/linux/bpf_local_storage.h, v6.12
 */
export const openLocalStorage: MapOpener = (map) =>
  Either.gen(function*() {
    const { bucket, element, map: { at }, storage } = yield* localStorageLayouts(map.kernel.btf)
    const table = yield* readHashTable(map, {
      buckets: at.buckets,
      count: at.bucket_log,
      isLog: true,
      elements: undefined,
      keySize: 8,
      valueSize: map.info.valueSize,
      end: 0n,
      layout: {
        bucketSize: bucket.size,
        bucketFirst: bucket.at["list.first"],
        next: element.at["map_node.next"],
        key: element.at.local_storage,
        value: element.at["sdata.data"]
      }
    })
    const key = derivedCodec((view, at) => {
      const owner = map.secondCursor.u64(view.getBigUint64(at, true) + BigInt(storage.at.owner))
      return owner === undefined ? missing(map.secondCursor.faultReason) : ownerOf(map, owner)
    })
    return { walk: () => new HashWalk(map.space, table, undefined), key }
  })

/**
 * CGROUP_STORAGE and PERCPU_CGROUP_STORAGE: a list of the values of each cgroup, or of each cgroup and attach type. The key is
 * `{ cgroup_inode_id, attach_type, path }`: as its type says, which is an id alone or `struct bpf_cgroup_storage_key`, and
 * the cgroup's path while it is there.
 * @see kernel/bpf/local_storage.c `struct bpf_cgroup_storage_map`; include/linux/bpf-cgroup.h `struct bpf_cgroup_storage`,
 * `struct bpf_storage_buffer`; v6.12
 */
export const openCgroupStorage: MapOpener = (map) =>
  Either.gen(function*() {
    const { info, kernel: { btf, memory }, offset, page, space } = map
    const { buffer, element, table: { at } } = yield* cgroupStorageLayouts(btf)
    if (info.keySize < 8 || info.keySize > element.sizeOf.key || info.valueSize > OBJECT_LIMIT) {
      return yield* Either.left(corrupted(`keys of ${info.keySize} bytes, values of ${info.valueSize}`))
    }
    const layout = {
      bucketSize: 16,
      bucketFirst: 0,
      next: element.at.list_map,
      key: element.at.key,
      value: element.at.buf,
      elementSize: element.size
    }
    const perCpu = isPerCpu(map.type)
    const list = {
      layout,
      bucketsPage: page,
      bucketsOffset: offset + at.list,
      bucketCount: 1,
      keySize: info.keySize,
      valueSize: perCpu ? info.valueSize : 8,
      elementLimit: Math.ceil(memory.size / element.size),
      end: kvaFrom(page, offset + at.list)
    }
    const target = { size: buffer.at.data + info.valueSize, value: buffer.at.data, length: info.valueSize }
    return {
      walk: () =>
        perCpu
          ? new HashWalk(space, list, map.copies)
          : new PointerSlotWalk(new HashWalk(space, list, undefined), map.secondCursor, target),
      key: derivedCodec((view, at) => {
        const id = view.getBigUint64(at, true)
        return objectOf({
          cgroup_inode_id: intOf(id),
          attach_type: info.keySize < 12 ? undefined : intOf(view.getUint32(at + 8, true)),
          path: map.objects.cgroupPath(id)
        })
      })
    }
  })
