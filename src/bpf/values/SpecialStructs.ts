import type { Btf } from "../../btf/Btf.ts"
import type { TypeTagType } from "../../btf/BtfType.ts"

/** kernel/bpf/btf.c `btf_find_kptr`, v6.12; `kptr_ref` and `kptr` of v6.1 are `kptr` and `kptr_untrusted` now. */
const KEPT_POINTER = new Set(["kptr", "kptr_ref", "kptr_untrusted", "percpu_kptr"])
/** Structs that only the kernel reads and writes, and how many bytes of them it uses. */
export const SPECIAL_STRUCTS: ReadonlyMap<string, number> = new Map([
  ["bpf_timer", 8],
  ["bpf_wq", 8],
  ["bpf_refcount", 4],
  ["bpf_list_node", 16],
  ["bpf_rb_node", 24],
  ["bpf_list_head", 16],
  ["bpf_rb_root", 16]
])

/** The tag of a pointer that a map owns, if it is one, by the type that it points at. */
export const keptPointer = (btf: Btf, pointee: number): TypeTagType | undefined => {
  const tag = btf.type(pointee)
  return tag?.kind === "TYPE_TAG" && !tag.attribute && KEPT_POINTER.has(tag.name) ? tag : undefined
}
