import { assert, describe, it } from "@effect/vitest"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeMaps } from "../MadeMaps.ts"

const array = (type: "ARRAY" | "PERCPU_ARRAY") => {
  const made = new MadeMaps()
  const address = made.map({ type, keySize: 4, valueSize: 4, maxEntries: 3, bytes: 88 + 3 * 8 })
  made.set32(address + 72n, 8)
  made.set32(address + 76n, 3)
  return { made, address, slot: (index: number) => address + BigInt(88 + index * 8) }
}

describe("ArrayWalk", () => {
  it("gives each element by its index, 8 bytes apart", () => {
    const { made, slot } = array("ARRAY")
    for (const index of [0, 1, 2]) made.set64(slot(index), BigInt(index + 0x10))
    assert.deepStrictEqual(made.read(), {
      entries: [[0, "10000000"], [1, "11000000"], [2, "12000000"]],
      problem: null,
      details: null
    })
  })

  it("gives each CPU's copy, and says where there is none", () => {
    const { made, slot } = array("PERCPU_ARRAY")
    const { copies, pointer } = made.perCpu(8)
    copies.forEach((copy, cpu) => made.set64(copy, BigInt(cpu + 1)))
    made.set64(slot(0), pointer)
    made.set64(slot(2), NOWHERE)
    const { entries, problem } = made.read()
    assert.deepStrictEqual(entries[0], [0, ["01000000", "02000000"]])
    assert.deepStrictEqual(entries[1], [1, [undefined, undefined]])
    assert.deepStrictEqual(entries[2], [2, [undefined, undefined]])
    assert.strictEqual(problem, "corrupted: element 1: its per-CPU pointer is null (and 3 more)")
  })

  it("does not believe a count that the array has no room for", () => {
    const { address, made } = array("ARRAY")
    made.set32(address + 16n, 1000)
    const { entries, problem } = made.read()
    assert.deepStrictEqual(entries, [])
    assert.match(problem!, /^corrupted: 1000 elements/)
  })
})
