import { layout } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"

/**
 * A ring buffer's positions, unsigned longs that count bytes; `mask` is its capacity less one. `pending_pos` came with
 * v6.10 and went back into stable kernels.
 * @see kernel/bpf/ringbuf.c `struct bpf_ringbuf_map`, `struct bpf_ringbuf`, v6.1 to v7.3
 */
export const ringBufferOffsets = offsetGroup("bpf-ringbuf", "BPF ring buffers: their positions", function*(btf) {
  return {
    map: yield* layout(btf, "bpf_ringbuf_map", ["rb"]),
    ring: yield* layout(btf, "bpf_ringbuf", ["mask", "consumer_pos", "producer_pos"], ["pending_pos"])
  }
})
