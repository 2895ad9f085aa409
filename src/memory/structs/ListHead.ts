import * as Either from "effect/Either"
import type { Btf } from "../../btf/Btf.ts"
import { layout } from "../../btf/Layout.ts"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { hex } from "../../core/Address.ts"
import type { KernelSpace } from "../KernelSpace.ts"

/** The two pointers that a list's head or a tree's root holds. */
export interface Head {
  /** `list_head.next`; `rb_root_cached.rb_root.rb_node` */
  readonly first: bigint
  /** `list_head.prev`; `rb_root_cached.rb_leftmost` */
  readonly second: bigint
}
/** A node's address, or as the last why there are no more. */
export type Node = bigint | { readonly problem: string }

const listLayout = memoizeByBtf((btf) => layout(btf, "list_head", ["next", "prev"]))
const nodeLayout = memoizeByBtf((btf) => layout(btf, "rb_node", ["__rb_parent_color", "rb_left", "rb_right"]))

/**
 * The nodes of a doubly linked list in order. Each must point back at the one before it, which leaves no room for cycles:
 * every node is in one list, in one place of it.
 * @see include/linux/list.h, v6.12
 */
export function* listedNodes(space: KernelSpace, btf: Btf, { first, second }: Head): Generator<Node> {
  const found = listLayout(btf)
  if (Either.isLeft(found)) return yield { problem: found.left.message }
  const { next, prev } = found.right.at
  if (first === 0n && second === 0n) return // never used
  const back = (node: bigint): bigint | undefined => space.u64(node + BigInt(prev))
  // The head's address is not given: the first node has it, or is it.
  const head = back(first)
  if (head === undefined) return yield { problem: space.faultText }
  if (space.u64(head + BigInt(next)) !== first || back(head) !== second) {
    return yield { problem: `corrupted: ${hex(first)} is not the first of the list at ${hex(head)}` }
  }
  for (let node = first, before = head; node !== head;) {
    const behind = back(node)
    if (behind === undefined) return yield { problem: space.faultText }
    if (behind !== before) {
      return yield { problem: `corrupted: ${hex(node)} points back at ${hex(behind)}, not at ${hex(before)}` }
    }
    yield node
    const after = space.u64(node + BigInt(next))
    if (after === undefined) return yield { problem: space.faultText }
    before = node
    node = after
  }
}

/**
 * The nodes of a red-black tree in order. Each must point up at the one above it, which leaves no room for cycles.
 * @see include/linux/rbtree_types.h, include/linux/rbtree.h `rb_parent`, v6.12
 */
export function* treeNodes(space: KernelSpace, btf: Btf, { first }: Head): Generator<Node> {
  const found = nodeLayout(btf)
  if (Either.isLeft(found)) return yield { problem: found.left.message }
  const { __rb_parent_color, rb_left, rb_right } = found.right.at
  const above: Array<bigint> = []
  let problem: string | undefined
  /** Go down on the left; false at a problem. */
  const descend = (from: bigint, parent: bigint): boolean => {
    for (let node = from, up = parent; node !== 0n;) {
      const colored = space.u64(node + BigInt(__rb_parent_color))
      const left = space.u64(node + BigInt(rb_left))
      if (colored === undefined || left === undefined) problem = space.faultText
      else if ((colored & ~3n) !== up) {
        problem = `corrupted: ${hex(node)} points up at ${hex(colored & ~3n)}, not at ${hex(up)}`
      }
      if (problem !== undefined || left === undefined) return false
      above.push(node)
      up = node
      node = left
    }
    return true
  }
  let going = descend(first, 0n)
  while (going) {
    const node = above.pop()
    if (node === undefined) return
    yield node
    const right = space.u64(node + BigInt(rb_right))
    if (right === undefined) return yield { problem: space.faultText }
    if (right !== 0n && right === space.u64(node + BigInt(rb_left))) {
      return yield { problem: `corrupted: both children of ${hex(node)} are ${hex(right)}` }
    }
    going = descend(right, node)
  }
  if (problem !== undefined) yield { problem }
}
