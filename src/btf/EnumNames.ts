import type { Btf } from "./Btf.ts"

/**
 * Names of an enum's values by number, without `prefix` and in lower case, as bpftool prints uapi enums: taken from the
 * kernel's own BTF, so that values newer than this code have their names too. Names without the prefix are left out.
 */
export const enumNames = (btf: Btf, enumName: string, prefix: string): ReadonlyMap<number, string> => {
  const names = new Map<number, string>()
  for (const id of btf.idsByName(enumName)) {
    const type = btf.type(id)
    if (type?.kind !== "ENUM") continue
    for (const { name, value } of type.values) {
      if (!name.startsWith(prefix)) continue
      // A renamed value's old name ends in _DEPRECATED and comes before the new one, with the same number.
      names.set(Number(value), name.slice(prefix.length).toLowerCase().replace(/_deprecated$/, ""))
    }
  }
  return names
}
