import { layout, layoutOf } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"

/**
 * Members of every BPF map, of its types' BTF, and of arrays: where they keep elements (the ktstr crate's
 * `BpfMapOffsets`). `array.value` is the place of the per-CPU pointers too (`pptrs`, a union). `btf` is the kernel's
 * `struct btf`, the types of one object; `base_btf` points at what split BTF continues. Before v5.11 only programs had such
 * objects, none was split, and the last three members were not there.
 * @see include/linux/bpf.h `struct bpf_map`, `struct bpf_array`; kernel/bpf/btf.c `struct btf`; v5.10 to v7.3;
 * "bpf: Implement basic split BTF support", "bpf: Assign ID to vmlinux BTF and return extra info for BTF in GET_OBJ_INFO", v5.11
 */
export const bpfMapOffsets = offsetGroup("bpf-map", "BPF maps: the list of them, and arrays", function*(btf) {
  return {
    map: yield* layout(btf, "bpf_map", [
      "id",
      "name",
      "map_type",
      "map_flags",
      "key_size",
      "value_size",
      "max_entries",
      "btf",
      "btf_key_type_id",
      "btf_value_type_id"
    ], ["btf_vmlinux_value_type_id"]),
    array: yield* layout(btf, "bpf_array", ["value"]),
    btf: yield* layout(btf, "btf", ["data", "data_size", "id"], ["base_btf", "kernel_btf", "name"])
  }
})

/**
 * Hash maps: `table.buckets` points at `n_buckets` buckets, each the head of a chain of elements that ends with an odd
 * pointer; the value follows the key (the ktstr crate's `HtabOffsets`). Several structs are called `bucket`: this one
 * has a head and a lock. `element.at.key` is not `element.size`, which may have padding.
 * @see kernel/bpf/hashtab.c `struct bpf_htab`, `struct bucket`, `struct htab_elem`; v6.1 to v7.3
 */
export const bpfHashOffsets = offsetGroup("bpf-hash", "BPF hash maps", function*(btf) {
  return {
    table: yield* layout(btf, "bpf_htab", ["buckets", "n_buckets"]),
    bucket: yield* layout(btf, "bucket", ["head.first", "raw_lock"]),
    element: yield* layout(btf, "htab_elem", ["hash_node.next", "key"])
  }
})

/**
 * The kernel's own copy of a registered struct: `map.at.kvalue` plus `value.at.data`, a cache line's alignment behind a
 * count and a state. A map's `value_size` counts that header too (the ktstr crate's `StructOpsOffsets`).
 * @see kernel/bpf/bpf_struct_ops.c `struct bpf_struct_ops_map`; include/linux/bpf.h `struct bpf_struct_ops_value`; v6.1
 * to v7.3
 */
export const bpfStructOpsOffsets = offsetGroup("bpf-struct-ops", "BPF struct_ops maps", function*(btf) {
  const map = yield* layout(btf, "bpf_struct_ops_map", ["kvalue"])
  return { map, value: yield* layoutOf(btf, map.typeOf.kvalue, ["data"]) }
})
