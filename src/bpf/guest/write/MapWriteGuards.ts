import type { Btf } from "../../../btf/Btf.ts"

/** Bytes of a value that belong to the kernel. */
export interface GuardedRange {
  readonly at: number
  readonly length: number
  /** `lock (bpf_spin_lock)` */
  readonly what: string
}

/**
 * Structs of `enum btf_field_type`, whose bytes the kernel does not let even programs write.
 * @see kernel/bpf/btf.c `btf_get_field_type`, include/linux/bpf.h `enum btf_field_type`, v6.1 to v6.18
 */
const STRUCTS: ReadonlySet<string> = new Set([
  "bpf_spin_lock",
  "bpf_res_spin_lock",
  "bpf_timer",
  "bpf_wq",
  "bpf_task_work",
  "bpf_list_head",
  "bpf_list_node",
  "bpf_rb_root",
  "bpf_rb_node",
  "bpf_refcount"
])

/** Tags of pointers that the kernel counts: `__kptr`, `__kptr_untrusted`, `__percpu_kptr`, `__uptr`, and older names. */
const KERNEL_POINTER = /^(kptr|uptr|percpu_kptr)/

/** Ranges that are looked for in one value; a hostile type has no more. */
const LIMIT = 4096

/** The parts of a value of this type that only the kernel may change. */
export const guardedRanges = (btf: Btf, typeId: number): ReadonlyArray<GuardedRange> => {
  const ranges: Array<GuardedRange> = []
  const look = (id: number, at: number, name: string, depth: number): void => {
    if (depth > 32 || ranges.length >= LIMIT) return
    const peeled = btf.peel(id)
    const type = btf.type(peeled)
    switch (type?.kind) {
      case "STRUCT":
      case "UNION":
        if (STRUCTS.has(type.name)) ranges.push({ at, length: type.size, what: `${name} (${type.name})` })
        else for (const member of type.members) look(member.type, at + (member.bitOffset >>> 3), member.name, depth + 1)
        return
      case "DATASEC":
        for (const variable of type.variables) look(variable.type, at + variable.offset, name, depth + 1)
        return
      case "VAR":
        return look(type.type, at, type.name, depth + 1)
      case "ARRAY": {
        // Nothing guarded in the first element: nothing in any.
        const before = ranges.length
        const size = btf.sizeOf(type.type) ?? 0
        look(type.type, at, name, depth + 1)
        const each = ranges.slice(before)
        for (let index = 1; index < type.count && each.length > 0 && ranges.length < LIMIT; index++) {
          ranges.push(...each.map((range) => ({ ...range, at: range.at + index * size })))
        }
        return
      }
      case "PTR": {
        const tag = btf.type(type.type)
        if (tag?.kind === "TYPE_TAG" && !tag.attribute && KERNEL_POINTER.test(tag.name)) {
          ranges.push({ at, length: 8, what: `${name} (${tag.name})` })
        }
        return
      }
    }
  }
  look(typeId, 0, "the value", 0)
  return ranges
}
