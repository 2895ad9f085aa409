import { assert, describe, it } from "@effect/vitest"
import { corrupted, unreadable } from "../../../src/core/Reason.ts"
import { treeNodes } from "../../../src/memory/structs/RbTree.ts"
import { MadeObjects, madeTypes, NOWHERE } from "./MadeObjects.ts"

const btf = madeTypes((blob, struct) => {
  const long = blob.int("unsigned long", 8)
  struct("rb_node", 24, [["__rb_parent_color", 0, long], ["rb_right", 8, long], ["rb_left", 16, long]])
})

/** A tree over node numbers from `from` up to `to`, balanced, with odd parents' colors as the kernel has them. */
const tree = (count: number) => {
  const objects = new MadeObjects()
  const nodes = Array.from({ length: count }, () => objects.object(24))
  const build = (from: number, to: number, parent: bigint): bigint => {
    if (from >= to) return 0n
    const middle = (from + to) >> 1
    const node = nodes[middle]
    objects.set64(node, parent | BigInt(middle & 1), build(middle + 1, to, node), build(from, middle, node))
    return node
  }
  const top = build(0, count, 0n)
  return { objects, nodes, top, walk: () => treeNodes(objects.space, btf, top) }
}
const hex = (n: bigint): string => `0x${n.toString(16)}`

describe("treeNodes", () => {
  it("gives the nodes in order", () => {
    for (const count of [0, 1, 2, 7, 100]) {
      const { nodes, walk } = tree(count)
      assert.deepStrictEqual(walk(), { nodes, problem: undefined })
    }
  })

  it("ends at a node that does not point up at the one above it, which a cycle never does", () => {
    const { nodes, objects, top, walk } = tree(7)
    const right = objects.get64(top + 8n)
    objects.set64(right + 8n, top)
    assert.deepStrictEqual(walk(), {
      nodes: nodes.slice(0, 6),
      problem: corrupted(`${hex(top)} points up at 0x0, not at ${hex(right)}`)
    })
  })

  it("ends at a node with the same child twice, and at one that cannot be read", () => {
    const { nodes, objects, top, walk } = tree(3)
    objects.set64(top + 8n, nodes[0])
    assert.deepStrictEqual(walk(), {
      nodes: nodes.slice(0, 2),
      problem: corrupted(`both children of ${hex(top)} are ${hex(nodes[0])}`)
    })
    objects.set64(top + 8n, NOWHERE)
    assert.deepStrictEqual(walk(), {
      nodes: nodes.slice(0, 2),
      problem: unreadable("0xffffdeadbeef0000 is not mapped")
    })
  })

  it("ends in a tree that is deeper than any", () => {
    const objects = new MadeObjects()
    const nodes = Array.from({ length: 65 }, () => objects.object(24))
    nodes.forEach((node, index) => objects.set64(node, nodes[index - 1] ?? 0n, 0n, nodes[index + 1] ?? 0n))
    const problem = corrupted(`${hex(nodes[64])} is below 64 other nodes`)
    assert.deepStrictEqual(treeNodes(objects.space, btf, nodes[0]), { nodes: [], problem })
  })

  it("says when the kernel's types lack the node", () => {
    const { problem } = treeNodes(new MadeObjects().space, madeTypes((blob) => blob.int("int", 4)), 1n)
    assert.match(problem!.text, /no struct rb_node/)
  })
})
