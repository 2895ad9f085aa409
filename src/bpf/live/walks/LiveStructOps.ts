import * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import { layoutOf } from "../../../btf/Layout.ts"
import { compile } from "../../../btf/render/Codec.ts"
import { type RenderedValue, toJson } from "../../../btf/render/RenderedValue.ts"
import { errnoName } from "../../../core/Errors.ts"
import { type Reason } from "../../../core/Reason.ts"
import type { OpenedMap } from "../../OpenMap.ts"
import { pointerOf } from "../../values/DerivedCodec.ts"
import { indexCodec } from "../../values/IndexCodec.ts"
import { structOpsCodec, structOpsHeader } from "../../values/StructOpsValue.ts"
import type { BpfCalls } from "../calls/BpfCalls.ts"
import type { LiveTable } from "./BatchWalk.ts"
import { KeyWalk } from "./KeyWalk.ts"
import type { LiveObjects } from "./LiveObjects.ts"

/** bpf(2) gives, in place of a function, the id of the program that implements it. */
const functionIn = (objects: LiveObjects) => (view: DataView, at: number, place: number): RenderedValue => {
  const id = view.getBigUint64(at + place, true)
  return id === 0n || id > 0xffff_ffffn ? pointerOf(id) : objects.program(Number(id))
}

/**
 * A STRUCT_OPS map: one entry, the struct as user space gave it, without the header that holds its state.
 * @see kernel/bpf/bpf_struct_ops.c `bpf_struct_ops_map_sys_lookup_elem`, v6.12
 */
export const openLiveStructOps = (
  calls: BpfCalls,
  map: LiveTable,
  types: Btf,
  typeId: number,
  objects: LiveObjects
): Either.Either<OpenedMap, Reason | { readonly message: string }> =>
  Either.gen(function*() {
    const { at: { data: header }, sizeOf, typeOf } = yield* layoutOf(types, typeId, ["data"])
    const common = yield* structOpsHeader(types, typeId)
    const value = calls.buffer(map.stride)
    const result = calls.lookup(map.fd, calls.buffer(4), value)
    if (result < 0) return yield* Either.left({ message: `BPF_MAP_LOOKUP_ELEM: ${errnoName(-result)}` })
    const shown = (field: "common.state" | "common.refcnt.refs.counter") =>
      toJson(compile(types, common.typeOf[field]).tree(value.view, common.at[field]))
    const table = { ...map, header, valueSize: sizeOf.data }
    return {
      walk: () => new KeyWalk(calls, table, true),
      key: indexCodec,
      value: structOpsCodec(types, typeOf.data, functionIn(objects)),
      details: {
        struct: types.nameOf(types.peel(typeOf.data)),
        state: shown("common.state"),
        refcnt: shown("common.refcnt.refs.counter")
      }
    }
  })
