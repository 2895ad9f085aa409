import * as Either from "effect/Either"
import type { Btf } from "../../btf/Btf.ts"
import { layout } from "../../btf/Layout.ts"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { hex } from "../../core/Address.ts"
import { corrupted, type Reason, toReason, truncated } from "../../core/Reason.ts"
import type { KernelSpace } from "../KernelSpace.ts"
import { NODE_LIMIT, type Nodes } from "./ListHead.ts"

/** Nodes above one another: at most 2 log2(n + 1) in a red-black tree. */
const DEPTH_LIMIT = 64

const nodeLayout = memoizeByBtf((btf) => layout(btf, "rb_node", ["__rb_parent_color", "rb_left", "rb_right"]))

/**
 * The nodes of a red-black tree in order, from its topmost one on (`rb_root.rb_node`; 0: none). Each must point up at the
 * one above it, which leaves no room for cycles; one that does not ends the walk with a problem.
 * @see include/linux/rbtree_types.h, include/linux/rbtree.h `rb_parent`, v6.12
 */
export const treeNodes = (space: KernelSpace, btf: Btf, top: bigint): Nodes => {
  const found = nodeLayout(btf)
  if (Either.isLeft(found)) return { nodes: [], problem: toReason(found.left) }
  const { __rb_parent_color, rb_left, rb_right } = found.right.at
  const nodes: Array<bigint> = []
  const above: Array<bigint> = []
  /** Go down on the left; a reason says why that is not possible. */
  const descend = (from: bigint, parent: bigint): Reason | undefined => {
    for (let node = from, up = parent; node !== 0n;) {
      const colored = space.u64(node + BigInt(__rb_parent_color))
      const left = space.u64(node + BigInt(rb_left))
      if (colored === undefined || left === undefined) return space.faultReason
      if ((colored & ~3n) !== up) {
        return corrupted(`${hex(node)} points up at ${hex(colored & ~3n)}, not at ${hex(up)}`)
      }
      if (above.length === DEPTH_LIMIT) return corrupted(`${hex(node)} is below ${DEPTH_LIMIT} other nodes`)
      above.push(node)
      up = node
      node = left
    }
    return undefined
  }
  let problem = descend(top, 0n)
  for (let node = above.pop(); node !== undefined && problem === undefined; node = above.pop()) {
    if (nodes.length === NODE_LIMIT) return { nodes, problem: truncated(`more than ${NODE_LIMIT} nodes in the tree`) }
    nodes.push(node)
    const right = space.u64(node + BigInt(rb_right))
    if (right === undefined) return { nodes, problem: space.faultReason }
    if (right !== 0n && right === space.u64(node + BigInt(rb_left))) {
      return { nodes, problem: corrupted(`both children of ${hex(node)} are ${hex(right)}`) }
    }
    problem = descend(right, node)
  }
  return { nodes, problem }
}
