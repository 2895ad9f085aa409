import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { Btf } from "../../../src/btf/Btf.ts"
import { kvaFrom } from "../../../src/core/Address.ts"
import { findDirectMap } from "../../../src/memory/arch/PageTable.ts"
import { X86PageTable } from "../../../src/memory/arch/X86PageTable.ts"
import { KernelSpace } from "../../../src/memory/KernelSpace.ts"
import { idrLayout, isValueEntry, walkIdr, walkXarray, xarrayLayout } from "../../../src/memory/structs/Xarray.ts"
import { LOADED, madeBtf, MadeKernel } from "../MadeKernel.ts"

const btf = Either.getOrThrow(Btf.parse(madeBtf(), { subject: "made" }))
const shape = Either.getOrThrow(idrLayout(btf))

/** Trees of nodes made by hand in the kernel's `map_idr`. */
const tree = () => {
  const made = new MadeKernel()
  const space = new KernelSpace(
    new X86PageTable(made.memory(), made.root, 4),
    findDirectMap(new X86PageTable(made.memory(), made.root, 4))
  )
  const idr = made.symbols.get("map_idr")!
  let free = LOADED + 50 * 4096
  return {
    made,
    space,
    head: (entry: bigint) => made.set64(made.physical("map_idr") + 8, entry),
    base: (base: number) => made.view.setUint32(made.physical("map_idr") - LOADED + 16, base, true),
    /** A node; gives the entry that refers to it. */
    node: (shift: number, slots: Readonly<Record<number, bigint>>): bigint => {
      const at = free
      free += 576
      made.view.setUint8(at - LOADED, shift)
      for (const [slot, entry] of Object.entries(slots)) made.set64(at + 40 + Number(slot) * 8, entry)
      return made.direct(at) | 2n
    },
    walk: () => {
      const entries: Array<readonly [number, bigint]> = []
      const problems = walkIdr(space, shape, idr, (index, page, offset) => entries.push([index, kvaFrom(page, offset)]))
      return { entries, problems }
    }
  }
}
const P = 0xffff_8882_4000_1000n
const internal = (n: number): bigint => BigInt(n << 2 | 2)

describe("walkIdr", () => {
  it("reads its layout from BTF", () => {
    assert.deepStrictEqual(shape, { head: 8, shift: 0, slots: 40, fanout: 64, root: 0, base: 16 })
    assert.deepStrictEqual(Either.getOrThrow(xarrayLayout(btf)), { head: 8, shift: 0, slots: 40, fanout: 64 })
  })

  it("gives nothing for an empty one and one entry for an entry at the head", () => {
    const t = tree()
    assert.deepStrictEqual(t.walk(), { entries: [], problems: [] })
    t.head(P)
    assert.deepStrictEqual(t.walk(), { entries: [[0, P]], problems: [] })
  })

  it("respects heights and gives entries in the order of their ids, whatever idr_next says", () => {
    const t = tree()
    const low = t.node(0, { 1: P, 63: P + 64n })
    const high = t.node(0, { 0: P + 128n })
    const middle = t.node(6, { 0: low, 2: high })
    t.head(t.node(12, { 0: middle, 63: t.node(6, { 63: t.node(0, { 63: P + 192n }) }) }))
    assert.deepStrictEqual(t.walk(), {
      entries: [[1, P], [63, P + 64n], [128, P + 128n], [2 ** 18 - 1, P + 192n]],
      problems: []
    })
  })

  it("adds the idr's base", () => {
    const t = tree()
    t.base(1)
    t.head(t.node(0, { 0: P, 5: P }))
    assert.deepStrictEqual(t.walk().entries.map(([id]) => id), [1, 6])
  })

  it("gives a multi-index entry once, and skips siblings, retry and zero entries", () => {
    const t = tree()
    const siblings = { 8: P, 9: internal(8), 10: internal(8), 11: internal(8) }
    t.head(
      t.node(6, {
        ...siblings,
        1: internal(256),
        2: internal(257),
        20: internal(1023),
        3: t.node(0, { 4: internal(62) })
      })
    )
    assert.deepStrictEqual(t.walk(), { entries: [[512, P]], problems: [] })
    for (const n of [0, 62, 256, 257, 1023]) {
      t.head(internal(n))
      assert.deepStrictEqual(t.walk(), { entries: [], problems: [] })
    }
  })

  it("leaves out a node that overlaps another, which makes a small memory a large tree", () => {
    const t = tree()
    const node = t.node(0, { 0: P, 1: P + 64n })
    t.head(t.node(6, { 0: node, 1: node + 8n, 2: node - 8n, 3: node + 568n }))
    const { entries, problems } = t.walk()
    assert.deepStrictEqual(entries.slice(0, 2), [[0, P], [1, P + 64n]])
    assert.deepStrictEqual(problems.map(({ kind, text }) => [kind, text.replace(/0x[0-9a-f]+/, "0x")]), [
      ["corrupted", "node 0x at index 64 overlaps another node"],
      ["corrupted", "node 0x at index 128 overlaps another node"],
      ["corrupted", "node 0x at index 192 overlaps another node"]
    ])
  })

  it("passes value entries on", () => {
    const t = tree()
    t.head(t.node(0, { 3: 42n << 1n | 1n }))
    const [[index, entry]] = t.walk().entries
    assert.deepStrictEqual([index, entry >> 1n, isValueEntry(Number(entry & 0xfffn))], [3, 42n, true])
    assert.isFalse(isValueEntry(Number(P & 0xfffn)))
  })

  it("reports broken nodes and goes on beside them", () => {
    const t = tree()
    const good = t.node(0, { 7: P })
    t.head(
      t.node(6, { 0: 0xffff_f123_4567_8002n, 1: good, 2: t.node(6, { 0: P }), 3: good, 4: t.node(0, { 0: P + 64n }) })
    )
    const { entries, problems } = t.walk()
    assert.deepStrictEqual(entries, [[71, P], [256, P + 64n]])
    assert.match(problems[0].text, /^node at index 0: 0xfffff12345678000 is not mapped$/)
    assert.match(problems[1].text, /at index 128 has shift 6 under 6$/)
    assert.match(problems[2].text, /at index 192 is in the tree twice$/)
    assert.strictEqual(problems.length, 3)
  })

  it("ends on a tree that contains itself", () => {
    const t = tree()
    const self = t.node(6, {})
    for (let slot = 0; slot < 64; slot++) {
      t.made.set64(Number(self - 2n - t.made.options.directBase) + 40 + slot * 8, self)
    }
    t.head(self)
    const { entries, problems } = t.walk()
    assert.deepStrictEqual(entries, [])
    // 64 are kept; one more line counts the others
    assert.deepStrictEqual(problems.slice(0, 64).map(({ kind }) => kind), Array.from({ length: 64 }, () => "corrupted"))
    for (const shift of [5, 66, 255]) {
      t.head(t.node(shift, { 0: P }))
      assert.match(t.walk().problems[0].text, new RegExp(`has shift ${shift}$`))
    }
  })

  it("says when its head cannot be read", () => {
    const t = tree()
    const problems = walkXarray(t.space, shape, 0xffff_f123_4567_8000n, () => assert.fail("visited"))
    assert.deepStrictEqual(problems, [{ kind: "unreadable", text: "head: 0xfffff12345678000 is not mapped" }])
    assert.deepStrictEqual(walkIdr(t.space, shape, 0n, () => assert.fail("visited")), [{
      kind: "unreadable",
      text: "idr_base: 0x0 is not mapped"
    }])
  })

  it.prop(
    "gives back any set of ids",
    [FastCheck.uniqueArray(FastCheck.nat(2 ** 24 - 1), { maxLength: 6 })],
    ([ids]) => {
      const t = tree()
      const build = (shift: number, ids: ReadonlyArray<number>): bigint => {
        const slots: Record<number, bigint> = {}
        for (let slot = 0; slot < 64; slot++) {
          const inside = ids.filter((id) => Math.floor(id / 2 ** shift) % 64 === slot)
          if (inside.length > 0) slots[slot] = shift === 0 ? P + BigInt(inside[0]) * 4n : build(shift - 6, inside)
        }
        return t.node(shift, slots)
      }
      if (ids.length > 0) t.head(build(18, ids))
      assert.deepStrictEqual(t.walk(), {
        entries: [...ids].sort((a, b) => a - b).map((id) => [id, P + BigInt(id) * 4n] as const),
        problems: []
      })
    }
  )
})
