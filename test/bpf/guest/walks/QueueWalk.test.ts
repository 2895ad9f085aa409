import { assert, describe, it } from "@effect/vitest"
import { MadeMaps } from "../MadeMaps.ts"

/** Places for four, from the second on filled with 1, 2, 3, which wrap. */
const queue = (type: "QUEUE" | "STACK") => {
  const made = new MadeMaps()
  const address = made.map({ type, keySize: 0, valueSize: 4, maxEntries: 3, bytes: 88 + 16 })
  const fields = { head: 72n, tail: 76n, size: 80n }
  made.set32(address + fields.head, 1)
  made.set32(address + fields.tail, 2)
  made.set32(address + fields.size, 4)
  for (const [place, value] of [[2, 1], [3, 2], [0, 3]]) made.set32(address + BigInt(88 + place * 4), value)
  return { made, set: (field: keyof typeof fields, value: number) => made.set32(address + fields[field], value) }
}

describe("QueueWalk", () => {
  it("gives the elements in the order in which they would be popped", () => {
    const values = [[0, "01000000"], [1, "02000000"], [2, "03000000"]]
    const { made } = queue("QUEUE")
    assert.deepStrictEqual(
      made.read(),
      { entries: values, problem: null, details: { elements: 3, head: 1, tail: 2 } } as never
    )
    const popped = queue("STACK").made.read().entries.map(([, value]) => value)
    assert.deepStrictEqual(popped, ["03000000", "02000000", "01000000"])
  })

  it("gives nothing of an empty one", () => {
    const { made, set } = queue("QUEUE")
    set("head", 2)
    assert.deepStrictEqual([made.read().entries, made.read().problem], [[], null])
  })

  it("does not believe positions outside, or places that the map does not have", () => {
    for (
      const [field, value, text] of [["head", 77, "head 77, tail 2 of 4"], ["size", 9, "head 1, tail 2 of 9"]] as const
    ) {
      const { made, set } = queue("QUEUE")
      set(field, value)
      assert.deepStrictEqual([made.read().entries, made.read().problem], [
        [],
        `corrupted: ${text} slots for 3 elements`
      ])
    }
  })
})
