import type { Btf } from "../../btf/Btf.ts"
import { layoutOf } from "../../btf/Layout.ts"
import { type Codec, compile } from "../../btf/render/Codec.ts"
import type { RenderedValue } from "../../btf/render/RenderedValue.ts"
import { derivedCodec } from "./DerivedCodec.ts"

/** Offsets of a struct's pointers to functions, by member. */
const functionsOf = (types: Btf, typeId: number): ReadonlyMap<string, number> => {
  const type = types.type(types.peel(typeId))
  const places = new Map<string, number>()
  if (type?.kind !== "STRUCT") return places
  for (const member of type.members) {
    const pointer = types.type(types.peel(member.type))
    if (pointer?.kind === "PTR" && types.type(types.peel(pointer.type))?.kind === "FUNC_PROTO") {
      places.set(member.name, member.bitOffset / 8)
    }
  }
  return places
}

/**
 * The value of a STRUCT_OPS map: the kernel's struct by its type. A pointer to a function is shown as `functionAt` says:
 * it gets the value's bytes, its start in them, and the pointer's offset.
 */
export const structOpsCodec = (
  types: Btf,
  typeId: number,
  functionAt: (view: DataView, at: number, place: number) => RenderedValue
): Codec => {
  const plain = compile(types, typeId)
  const functions = functionsOf(types, typeId)
  return derivedCodec((view, at) => {
    const tree = plain.tree(view, at)
    if (tree._tag !== "struct") return tree
    const members = tree.members.map(({ name, value }) => {
      const place = functions.get(name)
      return { name, value: place === undefined ? value : functionAt(view, at, place) }
    })
    return { _tag: "struct", members }
  })
}

/**
 * The layout of the header before a STRUCT_OPS map's struct, in the type that wraps both.
 * @see include/linux/bpf.h `struct bpf_struct_ops_common_value`, v6.12; until v6.8 its members stood in the value itself
 */
export const structOpsHeader = (types: Btf, typeId: number) =>
  layoutOf(types, typeId, ["common.state", "common.refcnt.refs.counter"], [], {
    "common.state": "state",
    "common.refcnt.refs.counter": "refcnt.refs.counter"
  })
