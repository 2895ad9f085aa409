import * as Either from "effect/Either"
import type { Btf } from "../btf/Btf.ts"
import { layout } from "../btf/Layout.ts"

/**
 * Where the kernel keeps its BPF structures, from its own BTF. `map`, `array` and `btf` are needed to list maps at all;
 * a missing `hash` or `program` blinds only those.
 * @see include/linux/bpf.h `struct bpf_map`, `struct bpf_array`, `struct bpf_prog`; kernel/bpf/btf.c `struct btf`;
 * kernel/bpf/hashtab.c `struct bpf_htab`, `struct bucket`, `struct htab_elem`; v6.12
 */
export const bpfLayouts = (btf: Btf) =>
  Either.gen(function*() {
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
      ]),
      array: yield* layout(btf, "bpf_array", ["value"]),
      btf: yield* layout(btf, "btf", ["data", "data_size", "id", "base_btf"]),
      hash: hashLayouts(btf),
      program: programLayouts(btf)
    }
  })

export type BpfLayouts = Either.Either.Right<ReturnType<typeof bpfLayouts>>

/** Several structs are called `bucket`; the one of hash maps has `head` and a lock (bcache's has no `head`). */
const hashLayouts = (btf: Btf) =>
  Either.gen(function*() {
    return {
      table: yield* layout(btf, "bpf_htab", ["buckets", "n_buckets"]),
      bucket: yield* layout(btf, "bucket", ["head.first", "raw_lock"]),
      element: yield* layout(btf, "htab_elem", ["hash_node.next", "key"])
    }
  })

const programLayouts = (btf: Btf) =>
  Either.gen(function*() {
    return {
      program: yield* layout(btf, "bpf_prog", ["type", "aux"]),
      aux: yield* layout(btf, "bpf_prog_aux", ["id", "name"])
    }
  })
