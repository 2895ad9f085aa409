import * as Either from "effect/Either"
import type { Btf } from "../../btf/Btf.ts"
import type { GroupMissing } from "../../btf/OffsetGroup.ts"
import { idrOffsets, xarrayOffsets } from "../../btf/offsets/Idr.ts"
import { hex, kvaFrom, kvaOffset, kvaPage } from "../../core/Address.ts"
import { corrupted, type Reason, within } from "../../core/Reason.ts"
import { WalkProblems } from "../../core/WalkProblems.ts"
import { type KernelSpace, pointerOffset, pointerPage } from "../KernelSpace.ts"

/**
 * Offsets in bytes; `fanout` is the number of slots in a node, 64, or 16 with CONFIG_BASE_SMALL.
 *
 * @since 0.1.0
 * @category models
 */
export interface XarrayLayout {
  readonly head: number
  readonly shift: number
  readonly slots: number
  readonly fanout: number
}

/**
 * `root` is `idr.idr_rt`, which is a `struct xarray`.
 *
 * @since 0.1.0
 * @category models
 */
export interface IdrLayout extends XarrayLayout {
  readonly root: number
  readonly base: number
}

/**
 * A visitor of entries: gets each one's index, and the stored pointer as a page number and an offset in the page.
 *
 * @since 0.1.0
 * @category models
 */
export type EntryVisitor = (index: number, page: number, offset: number) => void

const MAX_NODES = 2 ** 18

/**
 * The layouts that `walkXarray` needs from a kernel.
 *
 * @since 0.1.0
 * @category reading
 */
export const xarrayLayout = (btf: Btf): Either.Either<XarrayLayout, GroupMissing> =>
  Either.map(xarrayOffsets.resolve(btf), ({ node, xarray }) => ({
    head: xarray.at.xa_head,
    shift: node.at.shift,
    slots: node.at.slots,
    fanout: node.sizeOf.slots >= 64 * 8 ? 64 : 16
  }))

/**
 * The layouts that `walkIdr` needs from a kernel.
 *
 * @since 0.1.0
 * @category reading
 */
export const idrLayout = (btf: Btf): Either.Either<IdrLayout, GroupMissing> =>
  Either.gen(function*() {
    const array = yield* xarrayLayout(btf)
    const { idr } = yield* idrOffsets.resolve(btf)
    return { ...array, root: idr.at.idr_rt, base: idr.at.idr_base }
  })

/**
 * Is the entry an integer stored in place of a pointer (`xa_is_value`)? Its value is the entry >> 1.
 *
 * @since 0.1.0
 * @category guards
 */
export const isValueEntry = (offset: number): boolean => (offset & 1) === 1

/**
 * Visit every entry of the `struct xarray` at `address`, in index order, once for an entry that spans several indices.
 * Reserved (zero) and retry entries are skipped. A node that cannot be read, has the wrong height, overlaps another or is reached twice
 * gives a line in the result and is left out; the walk goes on beside it. Indices from 2^53 on are rounded.
 * @see lib/xarray.c `xas_load`, `xas_descend`; include/linux/xarray.h `xa_is_internal`, v6.12
 * @since 0.1.0
 * @category reading
 */
export const walkXarray = (
  space: KernelSpace,
  shape: XarrayLayout,
  address: bigint,
  visit: EntryVisitor
): ReadonlyArray<Reason> => {
  const problems = new WalkProblems()
  const bits = shape.fanout === 64 ? 6 : 4
  const size = shape.slots + shape.fanout * 8
  // By where a node starts in units of its size: nodes that overlap are in the same unit, or side by side.
  const seen = new Map<number, number>()
  let nodes = 0

  /** `parent`: the shift of the node above, or -1 at the head, where any height is right. */
  const entry = (index: number, page: number, offset: number, parent: number): void => {
    if (page === 0 && offset === 0) return
    if ((offset & 3) !== 2) return visit(index, page, offset)
    if (page === 0) return // sibling, retry, zero: a node is above 4096 (`xa_is_node`)
    node(index, page, offset - 2, parent)
  }

  const node = (index: number, page: number, offset: number, parent: number): void => {
    const where = () => hex(kvaFrom(page, offset))
    const pa = space.translatePage(page)
    if (!space.window(page, offset, size)) {
      return problems.add(within(`node at index ${index}`, space.faultReason))
    }
    const start = pa + offset
    const cell = Math.floor(start / size)
    for (let near = cell - 1; near <= cell + 1; near++) {
      const other = seen.get(near)
      if (other === undefined || Math.abs(other - start) >= size) continue
      const how = other === start ? "is in the tree twice" : "overlaps another node"
      return problems.add(corrupted(`node ${where()} at index ${index} ${how}`))
    }
    if (++nodes > MAX_NODES) return problems.add(corrupted(`more than ${MAX_NODES} nodes: walk ended`))
    seen.set(cell, start)
    const shift = space.view.getUint8(space.at + shape.shift)
    if (parent < 0 ? shift % bits !== 0 || shift >= 64 : shift !== parent - bits) {
      const below = parent < 0 ? "" : ` under ${parent}`
      return problems.add(corrupted(`node ${where()} at index ${index} has shift ${shift}${below}`))
    }
    // A copy: visiting an entry or a child moves the window.
    const slots = new Float64Array(shape.fanout * 2)
    for (let slot = 0; slot < shape.fanout; slot++) {
      const at = space.at + shape.slots + slot * 8
      slots[slot * 2] = pointerPage(space.view, at)
      slots[slot * 2 + 1] = pointerOffset(space.view, at)
    }
    const step = 2 ** shift
    for (let slot = 0; slot < shape.fanout; slot++) {
      entry(index + slot * step, slots[slot * 2], slots[slot * 2 + 1], shift)
    }
  }

  const head = address + BigInt(shape.head)
  if (space.window(kvaPage(head), kvaOffset(head), 8)) {
    entry(0, pointerPage(space.view, space.at), pointerOffset(space.view, space.at), -1)
  } else problems.add(within("head", space.faultReason))
  return problems.list
}

/**
 * Like `walkXarray` for the `struct idr` at `address`: indices are ids, whatever order they were given out in.
 *
 * @since 0.1.0
 * @category reading
 */
export const walkIdr = (
  space: KernelSpace,
  shape: IdrLayout,
  address: bigint,
  visit: EntryVisitor
): ReadonlyArray<Reason> => {
  const base = space.u32(address + BigInt(shape.base))
  if (base < 0) return [within("idr_base", space.faultReason)]
  return walkXarray(
    space,
    shape,
    address + BigInt(shape.root),
    (index, page, offset) => visit(index + base, page, offset)
  )
}
