import type { Btf } from "./Btf.ts"

/** `find`, run once for each kernel's BTF: finding a struct by its name searches all names. */
export const memoizeByBtf = <A>(find: (btf: Btf) => A): (btf: Btf) => A => {
  const known = new WeakMap<Btf, { readonly found: A }>()
  return (btf) => {
    const before = known.get(btf)
    if (before !== undefined) return before.found
    const found = find(btf)
    known.set(btf, { found })
    return found
  }
}
