import { layout } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"

/**
 * Stack traces: `map.buckets` is the start of `n_buckets` pointers, null or to a bucket of `nr` entries at `data`.
 * `n_buckets` is `max_entries` rounded up to a power of two.
 * @see kernel/bpf/stackmap.c `struct bpf_stack_map`, `struct stack_map_bucket`, v6.1 to v7.3
 */
export const stackMapOffsets = offsetGroup("bpf-stack-trace", "BPF maps of stack traces", function*(btf) {
  return {
    map: yield* layout(btf, "bpf_stack_map", ["n_buckets", "buckets"]),
    bucket: yield* layout(btf, "stack_map_bucket", ["nr", "data"])
  }
})
