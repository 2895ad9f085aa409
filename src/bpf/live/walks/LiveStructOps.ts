import * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import { layoutOf } from "../../../btf/Layout.ts"
import { type Codec, compile } from "../../../btf/render/Codec.ts"
import { type RenderedValue, toJson } from "../../../btf/render/RenderedValue.ts"
import { errnoName } from "../../../core/Errors.ts"
import { type Reason } from "../../../core/Reason.ts"
import { derivedCodec, pointerOf } from "../../DerivedCodec.ts"
import { indexCodec } from "../../IndexCodec.ts"
import type { BpfCalls } from "../calls/BpfCalls.ts"
import type { LiveTable } from "./BatchWalk.ts"
import { KeyWalk } from "./KeyWalk.ts"
import type { LiveObjects } from "./LiveObjects.ts"
import type { OpenedLiveMap } from "./OpenedLiveMap.ts"

/** Where the struct's pointers to functions are, by member. */
const functionsOf = (types: Btf, typeId: number): ReadonlyMap<string, number> => {
  const type = types.type(types.peel(typeId))
  if (type?.kind !== "STRUCT") return new Map()
  return new Map(type.members.flatMap((member) => {
    const pointer = types.type(types.peel(member.type))
    const isFunction = pointer?.kind === "PTR" && types.type(types.peel(pointer.type))?.kind === "FUNC_PROTO"
    return isFunction ? [[member.name, member.bitOffset / 8] as const] : []
  }))
}

/** The kernel's struct by its type. bpf(2) gives, in place of a function, the id of the program that implements it. */
const structCodec = (types: Btf, typeId: number, objects: LiveObjects): Codec => {
  const plain = compile(types, typeId)
  const functions = functionsOf(types, typeId)
  const functionAt = (view: DataView, at: number): RenderedValue => {
    const id = view.getBigUint64(at, true)
    return id === 0n || id > 0xffff_ffffn ? pointerOf(id) : objects.program(Number(id))
  }
  return derivedCodec((view, at) => {
    const tree = plain.tree(view, at)
    if (tree._tag !== "struct") return tree
    const members = tree.members.map(({ name, value }) => {
      const place = functions.get(name)
      return { name, value: place === undefined ? value : functionAt(view, at + place) }
    })
    return { _tag: "struct", members }
  })
}

/**
 * A STRUCT_OPS map: one entry, the struct as user space gave it, without the header that holds its state.
 * @see kernel/bpf/bpf_struct_ops.c `bpf_struct_ops_map_sys_lookup_elem`; include/linux/bpf.h `struct
 * bpf_struct_ops_common_value`; v6.12. Until v6.8 the header's members stood in the value itself
 */
export const openLiveStructOps = (
  calls: BpfCalls,
  map: LiveTable,
  types: Btf,
  typeId: number,
  objects: LiveObjects
): Either.Either<OpenedLiveMap, Reason | { readonly message: string }> =>
  Either.gen(function*() {
    const { at, sizeOf, typeOf } = yield* layoutOf(
      types,
      typeId,
      ["data", "common.state", "common.refcnt.refs.counter"],
      [],
      {
        "common.state": "state",
        "common.refcnt.refs.counter": "refcnt.refs.counter"
      }
    )
    const value = calls.buffer(map.stride)
    const result = calls.lookup(map.fd, calls.buffer(4), value)
    if (result < 0) return yield* Either.left({ message: `BPF_MAP_LOOKUP_ELEM: ${errnoName(-result)}` })
    const shown = (field: "common.state" | "common.refcnt.refs.counter") =>
      toJson(compile(types, typeOf[field]).tree(value.view, at[field]))
    const table = { ...map, header: at.data, valueSize: sizeOf.data }
    return {
      walk: () => new KeyWalk(calls, table, true),
      key: indexCodec,
      value: structCodec(types, typeOf.data, objects),
      details: {
        struct: types.nameOf(types.peel(typeOf.data)),
        state: shown("common.state"),
        refcnt: shown("common.refcnt.refs.counter")
      }
    }
  })
