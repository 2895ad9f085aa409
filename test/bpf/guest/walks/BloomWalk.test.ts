import { assert, describe, it } from "@effect/vitest"
import { MadeMaps } from "../MadeMaps.ts"

const bloom = () => {
  const made = new MadeMaps()
  const address = made.map({ type: "BLOOM_FILTER", keySize: 0, valueSize: 4, maxEntries: 64, bytes: 88 + 32 })
  made.set32(address + 72n, 255)
  made.set32(address + 76n, 7)
  made.set32(address + 80n, 3)
  made.set64(address + 88n, 0n, 0x8000_0000_0000_0001n, 0n, 6n)
  return { made, address }
}

describe("BloomWalk", () => {
  it("gives the words that are not 0, and counts the bits", () => {
    assert.deepStrictEqual(bloom().made.read(), {
      entries: [[1, "0x8000000000000001"], [3, "0x6"]],
      problem: null,
      details: { bits: 256, bitsSet: 4, hashFunctions: 3, hashSeed: 7 }
    })
  })

  it("does not believe a number of bits that no filter has", () => {
    for (const mask of [254, 2 ** 20 - 1]) {
      const { address, made } = bloom()
      made.set32(address + 72n, mask)
      const { entries, problem } = made.read()
      assert.deepStrictEqual(entries, [])
      assert.strictEqual(problem, `corrupted: a set of ${mask + 1} bits for 64 entries, 3 functions`)
    }
  })
})
