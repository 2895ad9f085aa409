import type { Btf } from "../../btf/Btf.ts"
import { type Codec, compilerWith } from "../../btf/render/Codec.ts"
import { derivedPlan } from "../../btf/render/RenderPlan.ts"
import { keptPointer, SPECIAL_STRUCTS } from "../values/SpecialStructs.ts"

const compilers = new WeakMap<Btf, (typeId: number) => Codec>()

/**
 * The codec of a map's value as bpf(2) returns it: fields that the kernel keeps there for programs are zeros, and are
 * shown as unsupported. So is a lock, which would read as one that nobody holds.
 * @see include/linux/bpf.h `copy_map_value`, v6.12
 */
export const syscallValueCodec = (btf: Btf, typeId: number): Codec => {
  const compiler = compilers.get(btf) ?? compilerWith(btf, (id) => {
    const type = btf.type(id)
    const isUnseen = type?.kind === "PTR"
      ? keptPointer(btf, type.type) !== undefined
      : type?.kind === "STRUCT" && SPECIAL_STRUCTS.has(type.name)
    return isUnseen ? derivedPlan(btf.sizeOf(id) ?? 0, 64, () => UNSEEN) : undefined
  })
  compilers.set(btf, compiler)
  return compiler(typeId)
}

const UNSEEN = { _tag: "unsupported", reason: "bpf(2) does not show it" } as const
