import { hex, kvaOffset, kvaPage } from "../../core/Address.ts"
import { corrupted, type Reason, truncated } from "../../core/Reason.ts"
import { type KernelSpace, pointerOffset, pointerPage } from "../KernelSpace.ts"

/** Nodes of one list, tree or table that are believed. */
export const NODE_LIMIT = 2 ** 20

/** The addresses of a container's nodes, in its order, and why there are no more if it breaks off. */
export interface Nodes {
  readonly nodes: ReadonlyArray<bigint>
  readonly problem: Reason | undefined
}

/**
 * The nodes of the list whose head is at an address. A node starts with the pointer to the next one; the word behind
 * points back at the node before it, or at the head: `list_head.prev`, `hlist_node.pprev`. A node that points elsewhere
 * ends the list with a problem, unless it is just being added or removed.
 * @param end what follows the last node: the head's own address in a `list_head`, 0 in a `hlist_head`
 * @see include/linux/types.h `struct list_head`, `struct hlist_node`; include/linux/list.h `__list_add`, `__list_del`,
 * `hlist_add_head`, `__hlist_del`; v6.12
 */
export const listNodes = (space: KernelSpace, head: bigint, end: bigint = head): Nodes => {
  if (end !== 0n && isEmpty(space, head)) return NO_NODES
  const nodes = new Set<bigint>()
  const ended = (problem: Reason | undefined): Nodes => ({ nodes: [...nodes], problem })
  let node = space.u64(head)
  if (node === undefined) return ended(space.faultReason)
  let page = kvaPage(node)
  let offset = kvaOffset(node)
  for (let before = head; node !== 0n || end !== 0n;) {
    // Both words in one look: lists of tens of thousands of tasks are read before anything else of them.
    if (!space.window(page, offset, 16)) return ended(space.faultReason)
    const { at, view } = space
    const after = view.getBigUint64(at, true)
    const back = view.getBigUint64(at + 8, true)
    page = pointerPage(view, at)
    offset = pointerOffset(view, at)
    if (back !== before && !isHalfLinked(space, before, node, back)) {
      return ended(corrupted(`${hex(node)} points back at ${hex(back)}, not at ${hex(before)}`))
    }
    if (node === end) break
    const { size } = nodes
    if (size === NODE_LIMIT) return ended(truncated(`more than ${NODE_LIMIT} nodes in the list at ${hex(head)}`))
    if (nodes.add(node).size === size) return ended(corrupted(`${hex(node)} is in the list twice`))
    before = node
    node = after
  }
  return ended(undefined)
}

/** Frozen in the middle of a change, the kernel has a node between the two that is not linked yet, or not any more. */
const isHalfLinked = (space: KernelSpace, before: bigint, node: bigint, back: bigint): boolean =>
  back === space.u64(before + 8n) || (space.u64(back) === node && space.u64(back + 8n) === before)

const NO_NODES: Nodes = { nodes: [], problem: undefined }

/** Whether both words of a `list_head` point at itself, or are 0: a `bpf_list_head`, or a head in BSS, before its first use. */
const isEmpty = (space: KernelSpace, head: bigint): boolean => {
  if (!space.window(kvaPage(head), kvaOffset(head), 16)) return false
  const next = space.view.getBigUint64(space.at, true)
  return (next === head || next === 0n) && space.view.getBigUint64(space.at + 8, true) === next
}

/** The nodes of the `list_head` with these two words, at an address that is not known: its first node points back at it. */
export const listNodesBehind = (space: KernelSpace, next: bigint, prev: bigint): Nodes => {
  if (next === 0n && prev === 0n) return { nodes: [], problem: undefined } // before its first use
  const head = space.u64(next + 8n)
  if (head === undefined) return { nodes: [], problem: space.faultReason }
  return space.u64(head) === next && space.u64(head + 8n) === prev
    ? listNodes(space, head)
    : { nodes: [], problem: corrupted(`${hex(next)} is not the first of the list at ${hex(head)}`) }
}
