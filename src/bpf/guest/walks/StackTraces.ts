import * as Either from "effect/Either"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { stackMapOffsets } from "../../../btf/offsets/bpf/StackMap.ts"
import type { RenderedValue } from "../../../btf/render/RenderedValue.ts"
import { corrupted } from "../../../core/Reason.ts"
import { derivedCodec, hexOf, intOf, objectOf } from "../../values/DerivedCodec.ts"
import type { KernelObjects } from "../objects/KernelObjects.ts"
import { ArrayWalk } from "./ArrayWalk.ts"
import type { MapOpener } from "./GuestMap.ts"
import { PointerSlotWalk } from "./PointerSlotWalk.ts"

/** `BPF_F_STACK_BUILD_ID`: frames are `struct bpf_stack_build_id`; include/uapi/linux/bpf.h, v6.12. */
const BUILD_ID = 1 << 5
/** `BPF_STACK_BUILD_ID_VALID`: an offset in a file; else the frame has an address. */
const VALID = 1

/** Frames from the innermost on, each as `name+0x…`, or its address where the kernel's image has no symbol for it. */
const framesCodec = (objects: KernelObjects) =>
  derivedCodec((view, at, length): RenderedValue => ({
    _tag: "array",
    elements: Array.from({ length: length / 8 }, (_, frame) => objects.code(view.getBigUint64(at + frame * 8, true))),
    omitted: 0
  }))

/** Frames as `{ buildId, offset }`, or `{ ip }` where the file could not be told. */
const buildIdCodec = (objects: KernelObjects, size: number, at: BuildIdPlaces) =>
  derivedCodec((view, start, length): RenderedValue => ({
    _tag: "array",
    elements: Array.from({ length: length / size }, (_, index) => {
      const frame = start + index * size
      const place = view.getBigUint64(frame + at.offset, true)
      return view.getInt32(frame + at.status, true) === VALID
        ? objectOf({ buildId: hexOf(view, frame + at.build_id, at.offset - at.build_id), offset: intOf(place) })
        : objectOf({ ip: objects.code(place) })
    }),
    omitted: 0
  }))

interface BuildIdPlaces {
  readonly status: number
  readonly build_id: number
  readonly offset: number
}

const stackLayouts = memoizeByBtf((btf) =>
  Either.gen(function*() {
    return {
      ...(yield* stackMapOffsets.resolve(btf)),
      frame: yield* layout(btf, "bpf_stack_build_id", ["status", "build_id", "offset"])
    }
  })
)

/**
 * A STACK_TRACE map: the key is the stack's id, which bpf_get_stackid() gave. Only the frames that are there are the value.
 * @see kernel/bpf/stackmap.c `struct bpf_stack_map`, `struct stack_map_bucket`; include/uapi/linux/bpf.h
 * `struct bpf_stack_build_id`; v6.12
 */
export const openStackTraces: MapOpener = ({ secondCursor, info, kernel, objects, offset, page, space }) =>
  Either.gen(function*() {
    const { bucket, frame, map } = yield* stackLayouts(kernel.btf)
    if (!space.window(page, offset + map.at.n_buckets, 4)) return yield* Either.left(space.faultReason)
    const buckets = space.view.getUint32(space.at, true)
    // `max_entries` rounded up to a power of two
    if (buckets > info.maxEntries * 2 || buckets * 8 > kernel.memory.size) {
      return yield* Either.left(corrupted(`${buckets} buckets for ${info.maxEntries} stacks`))
    }
    const byBuildId = (info.flags & BUILD_ID) !== 0
    const frameSize = byBuildId ? frame.size : 8
    const target = {
      size: bucket.at.data,
      value: bucket.at.data,
      length: (view: DataView, at: number) => view.getUint32(at + bucket.at.nr, true) * frameSize,
      most: Math.floor(info.valueSize / frameSize) * frameSize
    }
    const pointers = () => new ArrayWalk(space, page, offset + map.at.buckets, 8, buckets, undefined)
    return {
      walk: () => new PointerSlotWalk(pointers(), secondCursor, target),
      value: byBuildId ? buildIdCodec(objects, frame.size, frame.at) : framesCodec(objects)
    }
  })
