import * as Either from "effect/Either"
import { layout, layoutOf } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { compile } from "../../../btf/render/Codec.ts"
import { type RenderedValue, toJson } from "../../../btf/render/RenderedValue.ts"
import { kvaFrom } from "../../../core/Address.ts"
import { corrupted, within } from "../../../core/Reason.ts"
import type { KernelSpace } from "../../../memory/KernelSpace.ts"
import { OBJECT_LIMIT } from "../../../memory/structs/StructReader.ts"
import { indexCodec } from "../../values/IndexCodec.ts"
import { structOpsCodec, structOpsHeader } from "../../values/StructOpsValue.ts"
import { ArrayWalk } from "./ArrayWalk.ts"
import { type GuestMap, type MapOpener } from "./GuestMap.ts"

/**
 * A function that a program implements is that program, another kernel function its symbol. `programIds` is where the
 * kernel keeps, at the function's own offset, the program's id.
 */
const functionIn =
  ({ secondCursor, objects }: GuestMap, programIds: bigint) =>
  (view: DataView, at: number, place: number): RenderedValue => {
    const id = secondCursor.u64(programIds + BigInt(place))
    if (id !== undefined && id !== 0n && id <= 0xffff_ffffn) return objects.program(Number(id))
    return objects.code(view.getBigUint64(at + place, true))
  }

const structOpsLayouts = memoizeByBtf((btf) =>
  Either.gen(function*() {
    const map = yield* layout(btf, "bpf_struct_ops_map", ["kvalue", "uvalue"], ["btf"])
    const common = yield* structOpsHeader(btf, map.typeOf.kvalue)
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
 * @see kernel/bpf/bpf_struct_ops.c `struct bpf_struct_ops_map`, `bpf_struct_ops_map_update_elem`; v6.12
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
      : yield* Either.mapLeft(map.typesAt(typesAt), (why) => within("its module's BTF", why))
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
      value: structOpsCodec(types, wrapper.typeOf.data, functionIn(map, values + BigInt(wrapper.at.data))),
      details: {
        struct: types.nameOf(types.peel(wrapper.typeOf.data)),
        state: shown("common.state"),
        refcnt: users ?? shown("common.refcnt.refs.counter")
      }
    }
  })
