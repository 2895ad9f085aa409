import { assert, describe, it } from "@effect/vitest"
import { corrupted, unreadable } from "../../../src/core/Reason.ts"
import { listNodes, listNodesBehind } from "../../../src/memory/structs/ListHead.ts"
import { MadeObjects, NOWHERE } from "./MadeObjects.ts"

/** A list of `count` nodes: of `list_head`s in a ring, or of `hlist_node`s with 0 at the end. */
const list = (kind: "list" | "hlist", count: number) => {
  const objects = new MadeObjects()
  const head = objects.object(16)
  const nodes = Array.from({ length: count }, () => objects.object(16))
  const chain = [head, ...nodes]
  chain.forEach((node, index) => {
    objects.set64(node, chain[index + 1] ?? (kind === "list" ? head : 0n), chain[index - 1] ?? 0n)
  })
  if (kind === "list") objects.set64(head + 8n, chain.at(-1)!)
  return { objects, head, nodes, walk: () => listNodes(objects.space, head, kind === "list" ? head : 0n) }
}
const hex = (n: bigint): string => `0x${n.toString(16)}`

describe.each(["list", "hlist"] as const)("listNodes of a %s", (kind) => {
  it("gives the nodes in order, and none of an empty list", () => {
    const { nodes, walk } = list(kind, 5)
    assert.deepStrictEqual(walk(), { nodes, problem: undefined })
    assert.deepStrictEqual(list(kind, 0).walk(), { nodes: [], problem: undefined })
  })

  it("ends at a node that comes twice", () => {
    const { nodes, objects, walk } = list(kind, 4)
    objects.set64(nodes[3], nodes[1])
    assert.deepStrictEqual(walk(), {
      nodes,
      problem: corrupted(`${hex(nodes[1])} points back at ${hex(nodes[0])}, not at ${hex(nodes[3])}`)
    })
    objects.set64(nodes[3], nodes[3])
    assert.deepStrictEqual(walk(), { nodes, problem: corrupted(`${hex(nodes[3])} is in the list twice`) })
  })

  it("ends at a node that belongs to another list", () => {
    const { head, nodes, objects, walk } = list(kind, 4)
    const stranger = objects.object(16)
    objects.set64(stranger, head, 0xffff_0000_0000_1000n)
    objects.set64(nodes[1], stranger)
    assert.deepStrictEqual(walk(), {
      nodes: nodes.slice(0, 2),
      problem: corrupted(`${hex(stranger)} points back at 0xffff000000001000, not at ${hex(nodes[1])}`)
    })
  })

  it("ends at a node that cannot be read", () => {
    const { nodes, objects, walk } = list(kind, 3)
    objects.set64(nodes[0], NOWHERE + 16n)
    assert.deepStrictEqual(walk(), {
      nodes: nodes.slice(0, 1),
      problem: unreadable("0xffffdeadbeef0000 is not mapped")
    })
  })

  it("believes a list that the kernel is just adding to", () => {
    const { nodes, objects, walk } = list(kind, 3)
    // `__list_add`, `hlist_add_behind` before the last store: what follows points back at the new node
    const added = objects.object(16)
    objects.set64(added, nodes[1], nodes[0])
    objects.set64(nodes[1] + 8n, added)
    assert.deepStrictEqual(walk(), { nodes, problem: undefined })
    // `__list_del`, `__hlist_del` before the last store
    const { nodes: [first, second, third], objects: others, walk: rest } = list(kind, 3)
    others.set64(third + 8n, first)
    assert.deepStrictEqual(rest(), { nodes: [first, second, third], problem: undefined })
  })
})

describe("listNodes", () => {
  it("notices a head whose last node is another one", () => {
    const { head, nodes, objects, walk } = list("list", 3)
    objects.set64(head + 8n, 0xffff_0000_0000_1000n)
    const problem = corrupted(`${hex(head)} points back at 0xffff000000001000, not at ${hex(nodes[2])}`)
    assert.deepStrictEqual(walk(), { nodes, problem })
  })

  it("gives nothing of a head of zeros, which nobody has used yet", () => {
    const objects = new MadeObjects()
    assert.deepStrictEqual(listNodes(objects.space, objects.object(16)), { nodes: [], problem: undefined })
  })
})

describe("listNodesBehind", () => {
  it("finds the head by the first node's pointer back", () => {
    const { head, nodes, objects } = list("list", 3)
    const behind = (next: bigint, prev: bigint) => listNodesBehind(objects.space, next, prev)
    assert.deepStrictEqual(behind(nodes[0], nodes[2]), { nodes, problem: undefined })
    assert.deepStrictEqual(behind(head, head), {
      nodes: [],
      problem: corrupted(`${hex(head)} is not the first of the list at ${hex(nodes[2])}`)
    })
    assert.deepStrictEqual(behind(0n, 0n), { nodes: [], problem: undefined })
    assert.deepStrictEqual(behind(NOWHERE, NOWHERE), {
      nodes: [],
      problem: unreadable("0xffffdeadbeef0000 is not mapped")
    })
    assert.deepStrictEqual(behind(nodes[1], nodes[2]), {
      nodes: [],
      problem: corrupted(`${hex(nodes[1])} is not the first of the list at ${hex(nodes[0])}`)
    })
  })
})
