import { assert, describe, it } from "@effect/vitest"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeMaps } from "../MadeMaps.ts"

/** 10.0.0.0/8 above 10.1.0.0/16 and, joined by a node without a value, 10.128.0.0/9 and what is below it. */
const trie = () => {
  const made = new MadeMaps()
  const map = made.map({ type: "LPM_TRIE", keySize: 8, valueSize: 4, maxEntries: 10, bytes: 80 })
  const node = (length: number, data: ReadonlyArray<number>, flags = 0) => {
    const address = made.object(40 + 8)
    made.set32(address + 32n, length)
    made.set32(address + 36n, flags)
    made.put(address + 40n, Uint8Array.from([...data, length, 0, 0, 0]))
    return address
  }
  const root = node(8, [10, 0, 0, 0])
  const left = node(16, [10, 1, 0, 0])
  const join = node(9, [10, 128, 0, 0], 1)
  const right = node(24, [10, 129, 1, 0])
  made.set64(map + 72n, root)
  made.set64(root + 16n, left, join)
  made.set64(join + 16n, 0n, right)
  return { made, map, root, left, join, right }
}
const lengths = (made: MadeMaps) => {
  const { entries, problem } = made.read()
  return [entries.map(([key]) => Number.parseInt(String(key).slice(0, 2), 16)), problem]
}

describe("TrieWalk", () => {
  it("gives shorter prefixes before those below them, and no node that only joins", () => {
    const { made } = trie()
    assert.deepStrictEqual(lengths(made), [[8, 16, 24], null])
    assert.deepStrictEqual(made.read().entries[2], ["180000000a810100", "18000000"])
  })

  it("leaves a branch that leads back to its root", () => {
    const { left, made, root } = trie()
    made.set64(left + 16n, root)
    assert.deepStrictEqual(lengths(made), [
      [8, 16, 24],
      "corrupted: a node of prefix length 8 where 17 to 32 can be; left"
    ])
  })

  it("leaves a branch that cannot be read, and one whose prefix is longer than a key", () => {
    const { join, left, made, right } = trie()
    made.set64(left + 16n, NOWHERE)
    assert.deepStrictEqual(lengths(made), [
      [8, 16, 24],
      "unreadable: node below prefix length 17: 0xffffdeadbeef0000 is not mapped"
    ])
    made.set64(left + 16n, 0n)
    made.set32(right + 32n, 33)
    assert.deepStrictEqual(lengths(made), [
      [8, 16],
      "corrupted: a node of prefix length 33 where 10 to 32 can be; left"
    ])
    made.set32(join + 32n, 4)
    assert.match(String(lengths(made)[1]), /^corrupted: a node of prefix length 4 where 9 to 32 can be; left$/)
  })

  it("ends where there are more nodes than the map can have", () => {
    const { made, map } = trie()
    made.set32(map + 16n, 1)
    assert.match(String(lengths(made)[1]), /^corrupted: more nodes than the map can have \(2\); walk ended$/)
  })
})
