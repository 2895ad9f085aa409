import type { Btf } from "./Btf.ts"

/** Found once for each kernel: to find a struct by its name means to search all names. */
export const layoutsOf = <A>(find: (btf: Btf) => A): (btf: Btf) => A => {
  const known = new WeakMap<Btf, { readonly found: A }>()
  return (btf) => {
    const before = known.get(btf)
    if (before !== undefined) return before.found
    const found = find(btf)
    known.set(btf, { found })
    return found
  }
}
