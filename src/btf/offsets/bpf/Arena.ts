import { layout } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"

/**
 * Memory that programs share with user space: `arena.kern_vm` points at `area`, whose `addr` is where the kernel maps
 * it; `user_vm_start` is its address for user space (the ktstr crate's `BpfArenaOffsets`).
 * @see kernel/bpf/arena.c `struct bpf_arena`; include/linux/vmalloc.h `struct vm_struct`; v6.9 to v7.3
 */
export const arenaOffsets = offsetGroup("bpf-arena", "BPF arenas", function*(btf) {
  return {
    arena: yield* layout(btf, "bpf_arena", ["kern_vm", "user_vm_start"]),
    area: yield* layout(btf, "vm_struct", ["addr"])
  }
})
