import * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import { layout, layoutOf } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { type Codec, compile } from "../../../btf/render/Codec.ts"
import { type RenderedValue, toJson } from "../../../btf/render/RenderedValue.ts"
import { kvaFrom } from "../../../core/Address.ts"
import { corrupted } from "../../../core/Reason.ts"
import type { KernelSpace } from "../../../memory/KernelSpace.ts"
import { OBJECT_LIMIT } from "../../../memory/structs/StructReader.ts"
import { derivedCodec } from "../../DerivedCodec.ts"
import { indexCodec } from "../../IndexCodec.ts"
import { ArrayWalk } from "./ArrayWalk.ts"
import { type GuestMap, type MapOpener } from "./OpenedMap.ts"

/** Where the struct's pointers to functions are, by member. */
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
 * The kernel's struct by its type; a function that a program implements is that program, another kernel function its
 * symbol. `programIds` is where the kernel keeps, at the function's own offset, the program's id.
 */
const structCodec = ({ secondCursor, objects }: GuestMap, types: Btf, typeId: number, programIds: bigint): Codec => {
  const plain = compile(types, typeId)
  const functions = functionsOf(types, typeId)
  const functionAt = (view: DataView, at: number, place: number): RenderedValue => {
    const id = secondCursor.u64(programIds + BigInt(place))
    if (id !== undefined && id !== 0n && id <= 0xffff_ffffn) return objects.program(Number(id))
    return objects.code(view.getBigUint64(at + place, true))
  }
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

const structOpsLayouts = memoizeByBtf((btf) =>
  Either.gen(function*() {
    const map = yield* layout(btf, "bpf_struct_ops_map", ["kvalue", "uvalue"], ["btf"])
    const common = yield* layoutOf(btf, map.typeOf.kvalue, ["common.state", "common.refcnt.refs.counter"], [], {
      "common.state": "state",
      "common.refcnt.refs.counter": "refcnt.refs.counter"
    })
    // include/linux/bpf.h `struct bpf_map`: it counts users of the struct since links to one exist (v6.4)
    const counts = Either.isRight(layout(btf, "bpf_struct_ops_link", ["map"]))
      ? yield* layout(btf, "bpf_map", ["refcnt.counter", "usercnt.counter"])
      : undefined
    return { map, common, counts }
  })
)

/** Users of the struct besides those that hold the map open: what bpf(2) shows in the place of the value's own count. */
const usersOf = (
  space: KernelSpace,
  start: bigint,
  at: { readonly "refcnt.counter": number; readonly "usercnt.counter": number }
): number | undefined => {
  const all = space.u64(start + BigInt(at["refcnt.counter"]))
  const open = space.u64(start + BigInt(at["usercnt.counter"]))
  return all === undefined || open === undefined ? undefined : Math.max(0, Number(BigInt.asIntN(64, all - open)))
}

/**
 * A STRUCT_OPS map: one entry, the struct that the kernel uses (`kvalue.data`), typed by the kernel's BTF or its module's.
 * The kernel keeps a second copy as user space gave it, in which the functions are ids of programs. `state` and `refcnt` are
 * those that bpf(2) gives.
 * @see kernel/bpf/bpf_struct_ops.c `struct bpf_struct_ops_map`, `bpf_struct_ops_map_update_elem`; include/linux/bpf.h
 * `struct bpf_struct_ops_common_value`; v6.12. Until v6.8 its members stood in `bpf_struct_ops_value` itself
 */
export const openStructOps: MapOpener = (map) =>
  Either.gen(function*() {
    const { kernel, kernelTypeId, offset, page, space } = map
    const { common, counts, map: { at } } = yield* structOpsLayouts(kernel.btf)
    const start = kvaFrom(page, offset)
    const typesAt = at.btf === undefined ? 0n : space.u64(start + BigInt(at.btf))
    const values = space.u64(start + BigInt(at.uvalue))
    if (typesAt === undefined || values === undefined) return yield* Either.left(space.faultReason)
    const types = typesAt === 0n
      ? kernel.btf
      : yield* map.typesAt(typesAt)
    const wrapper = yield* layoutOf(types, kernelTypeId, ["data"])
    const size = wrapper.sizeOf.data
    if (size > OBJECT_LIMIT) return yield* Either.left(corrupted(`a struct of ${size} bytes`))
    const users = counts === undefined ? undefined : usersOf(space, start, counts.at)
    if (counts !== undefined && users === undefined) return yield* Either.left(space.faultReason)
    const header = offset + at.kvalue
    if (!space.window(page, header, wrapper.at.data)) return yield* Either.left(space.faultReason)
    const shown = (field: "common.state" | "common.refcnt.refs.counter") =>
      toJson(compile(kernel.btf, common.typeOf[field]).tree(space.view, space.at + common.at[field]))
    return {
      walk: () => new ArrayWalk(space, page, header + wrapper.at.data, size, 1, undefined),
      key: indexCodec,
      value: structCodec(map, types, wrapper.typeOf.data, values + BigInt(wrapper.at.data)),
      details: {
        struct: types.nameOf(types.peel(wrapper.typeOf.data)),
        state: shown("common.state"),
        refcnt: users ?? shown("common.refcnt.refs.counter")
      }
    }
  })
