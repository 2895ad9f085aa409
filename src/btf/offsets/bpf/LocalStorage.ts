import { layout } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"

/**
 * Maps that keep a value with each task (or socket, inode, cgroup): `map.buckets` points at 2^`bucket_log` buckets,
 * each the head of a chain of elements by their `map_node`; a null ends it. The value is at `element.at["sdata.data"]`,
 * the object that it belongs to at `storage.at.owner` behind the pointer `element.at.local_storage` (the ktstr crate's
 * `TaskStorageOffsets`).
 * @see include/linux/bpf_local_storage.h, kernel/bpf/bpf_local_storage.c; v6.1 to v7.3
 */
export const localStorageOffsets = offsetGroup(
  "local-storage",
  "BPF maps of task, inode, socket, cgroup storage",
  function*(btf) {
    return {
      map: yield* layout(btf, "bpf_local_storage_map", ["buckets", "bucket_log"]),
      bucket: yield* layout(btf, "bpf_local_storage_map_bucket", ["list", "list.first"]),
      element: yield* layout(btf, "bpf_local_storage_elem", [
        "map_node",
        "map_node.next",
        "local_storage",
        "sdata",
        "sdata.data"
      ]),
      storage: yield* layout(btf, "bpf_local_storage", ["owner"])
    }
  }
)
