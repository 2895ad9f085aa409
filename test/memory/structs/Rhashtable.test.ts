import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { corrupted, unreadable } from "../../../src/core/Reason.ts"
import { rhashtableLayout, rhashtableNodes } from "../../../src/memory/structs/Rhashtable.ts"
import { MadeObjects, madeTypes, NOWHERE } from "./MadeObjects.ts"

/** As in v6.12 without lockdep; include/linux/rhashtable.h. */
const btf = madeTypes((blob, struct) => {
  const int = blob.int("unsigned int", 4)
  const long = blob.int("unsigned long", 8)
  struct("rhashtable", 136, [["tbl", 0, long], ["key_len", 8, int]])
  struct("bucket_table", 64, [["size", 0, int], ["nest", 4, int], ["hash_rnd", 8, int], ["future_tbl", 48, long], [
    "buckets",
    64,
    blob.array(long, 0)
  ]])
})
const layout = Either.getOrThrow(rhashtableLayout(btf))
const hex = (n: bigint): string => `0x${n.toString(16)}`

class Table {
  readonly objects = new MadeObjects()
  readonly address = this.objects.object(136)

  /** A table with chains of elements by bucket, one behind the pointer at `from`. */
  table(from: bigint, size: number, chains: Readonly<Record<number, ReadonlyArray<bigint>>>): bigint {
    const { objects } = this
    const table = this.header(from, size, 0, size)
    for (let bucket = 0; bucket < size; bucket++) this.chain(table + 64n + BigInt(bucket * 8), chains[bucket] ?? [])
    assert.strictEqual(objects.get64(from), table)
    return table
  }

  /** An empty bucket is 0 or the marker that its own address makes; the last element of a chain points at the marker. */
  chain(bucket: bigint, chain: ReadonlyArray<bigint>, locked = 0n): void {
    this.objects.set64(bucket, chain.length === 0 ? locked : chain[0] | locked)
    chain.forEach((node, index) => this.objects.set64(node, chain[index + 1] ?? bucket | 1n))
  }

  header(from: bigint, size: number, nest: number, pointers: number): bigint {
    const table = this.objects.object(64 + pointers * 8)
    this.objects.set32(table, size)
    this.objects.set32(table + 4n, nest)
    this.objects.set64(from, table)
    return table
  }

  nodes(count: number): ReadonlyArray<bigint> {
    return Array.from({ length: count }, () => this.objects.object(8))
  }

  walk() {
    return rhashtableNodes(this.objects.space, layout, this.address)
  }
}

describe("rhashtableNodes", () => {
  it("gives the elements of each bucket, whether the bucket is locked or not", () => {
    const t = new Table()
    const nodes = t.nodes(4)
    const table = t.table(t.address, 4, { 1: nodes.slice(0, 3), 3: nodes.slice(3) })
    assert.deepStrictEqual(t.walk(), { nodes, problem: undefined })
    t.chain(table + 64n + 8n, nodes.slice(0, 3), 1n)
    t.chain(table + 64n, [], 1n)
    assert.deepStrictEqual(t.walk(), { nodes, problem: undefined })
  })

  it("gives those of the table that elements are moved to, and an element that is in both once", () => {
    const t = new Table()
    const nodes = t.nodes(5)
    const old = t.table(t.address, 4, { 0: nodes.slice(0, 2), 2: nodes.slice(2, 3) })
    t.table(old + 48n, 8, { 5: nodes.slice(3), 6: nodes.slice(1, 2) })
    // `rhashtable_rehash_one` has stored the new bucket and not yet taken the element off the old chain
    const { nodes: found, problem } = t.walk()
    assert.deepStrictEqual([[...found].sort(), problem], [[...nodes].sort(), undefined])
    assert.strictEqual(new Set(found).size, found.length)
  })

  it("gives those of nested tables, which are made where no large one is free", () => {
    const t = new Table()
    const nodes = t.nodes(4)
    // 2048 buckets: 2 tables of pointers to tables of 2 buckets
    const table = t.header(t.address, 2048, 1, 1)
    const [top, left, right, a, b] = [2, 512, 512, 2, 2].map((words) => t.objects.object(words * 8))
    t.objects.set64(table + 64n, top)
    t.objects.set64(top, left, right)
    t.objects.set64(left + 5n * 8n, a)
    t.objects.set64(right + 511n * 8n, b)
    t.chain(a, nodes.slice(0, 1))
    t.chain(b, nodes.slice(1, 2))
    t.chain(b + 8n, nodes.slice(2))
    assert.deepStrictEqual(t.walk(), { nodes, problem: undefined })
    t.objects.set64(top, NOWHERE)
    assert.deepStrictEqual(t.walk(), { nodes: nodes.slice(1), problem: unreadable("0xffffdeadbeef0000 is not mapped") })
  })

  it("tells the first problem and goes on beside it", () => {
    const t = new Table()
    const nodes = t.nodes(6)
    const table = t.table(t.address, 4, { 0: nodes.slice(0, 3), 1: nodes.slice(3, 5), 2: nodes.slice(5) })
    t.objects.set64(nodes[2], nodes[1])
    assert.deepStrictEqual(t.walk(), { nodes, problem: corrupted(`${hex(nodes[1])} is in the table twice`) })
    t.objects.set64(nodes[2], NOWHERE)
    assert.deepStrictEqual(t.walk(), { nodes, problem: unreadable("0xffffdeadbeef0000 is not mapped") })
    t.objects.set64(table + 48n, table)
    t.objects.set64(nodes[2], table | 1n)
    assert.deepStrictEqual(t.walk(), { nodes, problem: corrupted(`tables without end at ${hex(table)}`) })
  })

  it("finds a cycle among elements that another table had too", () => {
    const t = new Table()
    const nodes = t.nodes(2)
    const old = t.table(t.address, 4, { 0: nodes })
    t.table(old + 48n, 4, { 1: nodes })
    t.objects.set64(nodes[1], nodes[0])
    assert.deepStrictEqual(t.walk(), { nodes, problem: corrupted(`${hex(nodes[0])} is in the table twice`) })
  })

  it("does not believe sizes that no table has", () => {
    for (const [size, nest] of [[2 ** 31, 0], [6, 0], [4, 3]]) {
      const t = new Table()
      t.header(t.address, size, nest, 1)
      assert.deepStrictEqual(t.walk(), {
        nodes: [],
        problem: corrupted(`a table of ${size} buckets, nested by ${nest} bits`)
      })
    }
  })

  it("gives nothing of a table that was never made, and says what cannot be read", () => {
    const t = new Table()
    assert.deepStrictEqual(t.walk(), { nodes: [], problem: undefined })
    t.objects.set64(t.address, NOWHERE)
    assert.deepStrictEqual(t.walk(), { nodes: [], problem: unreadable("0xffffdeadbeef0000 is not mapped") })
  })
})
