import type { Btf } from "../btf/Btf.ts"

/**
 * The map types that are read, by number.
 * @see include/uapi/linux/bpf.h `enum bpf_map_type`, v6.12
 */
export const MapType = {
  HASH: 1,
  ARRAY: 2,
  PERCPU_HASH: 5,
  PERCPU_ARRAY: 6,
  LRU_HASH: 9,
  LRU_PERCPU_HASH: 10
} as const

/**
 * What bpftool calls the numbers of a uapi enum such as `bpf_map_type`, taken from the kernel's own BTF, so that types
 * newer than this code have their names too. A number without one is called `type N`.
 */
export const typeNames = (btf: Btf, enumName: "bpf_map_type" | "bpf_prog_type"): (type: number) => string => {
  const names = new Map<number, string>()
  const prefix = `${enumName.toUpperCase()}_`
  for (const id of btf.idsByName(enumName)) {
    const type = btf.type(id)
    if (type?.kind !== "ENUM") continue
    for (const { name, value } of type.values) {
      // A renamed type's old name ends in _DEPRECATED and stands before the new one, with the same number.
      if (name.startsWith(prefix)) {
        names.set(Number(value), name.slice(prefix.length).toLowerCase().replace(/_deprecated$/, ""))
      }
    }
  }
  return (type) => names.get(type) ?? `type ${type}`
}
