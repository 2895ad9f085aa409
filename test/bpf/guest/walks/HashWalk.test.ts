import { assert, describe, it } from "@effect/vitest"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeHash, u32, u64 } from "../MadeHash.ts"

/** Keys 5, 6, 7 in bucket 1, and 9 in bucket 3; values are ten times the key. */
const hash = () => {
  const made = new MadeHash({ type: "HASH", keySize: 4, valueSize: 4 })
  const elements = [5, 6, 7, 9].map((key) => made.element(u32(key), u32(key * 10)))
  made.chain(1, elements.slice(0, 3))
  made.chain(3, elements.slice(3))
  return { made, elements }
}
const keys = (made: MadeHash) => {
  const { entries, problem } = made.read()
  return [entries.map(([key]) => Number.parseInt(String(key), 16) / 2 ** 24), problem]
}

describe("HashWalk", () => {
  it("gives the elements of each chain", () => {
    const { made } = hash()
    assert.deepStrictEqual(keys(made), [[5, 6, 7, 9], null])
    assert.deepStrictEqual(made.read().entries[3], ["09000000", "5a000000"])
  })

  it.each(["HASH", "PERCPU_HASH"] as const)(
    "gives each element of %s once, those that lie across pages and those deeper than are prefetched too",
    (type) => {
      const made = new MadeHash({ type, keySize: 8, valueSize: 24 })
      const value = (number: number) => new Uint8Array(BigUint64Array.of(1n, 2n, BigInt(number)).buffer)
      const elements = Array.from({ length: 150 }, (_, key) => {
        const at = made.element(u64(key), value(key), value(key + 1000))
        return { at, key, isAcross: (at & 4095n) + BigInt(made.elementSize) > 4096n }
      })
      const [whole, across] = [false, true].map((is) => elements.filter(({ isAcross }) => isAcross === is))
      assert.isAtLeast(across.length, 2)
      const chains = [across, [], whole.slice(1), whole.slice(0, 1)]
      for (const [bucket, chain] of chains.entries()) made.chain(bucket, chain.map(({ at }) => at))
      const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
      const values = (key: number) => [hex(value(key)), hex(value(key + 1000))]
      const { entries, problem } = made.read()
      assert.deepStrictEqual(
        entries,
        chains.flat().map(({ key }) => [hex(u64(key)), type === "HASH" ? values(key)[0] : values(key)])
      )
      assert.isNull(problem)
    }
  )

  it("leaves a chain that is a cycle, and goes on with the next bucket", () => {
    const { elements, made } = hash()
    made.set64(elements[2], elements[0])
    const [found, problem] = keys(made)
    assert.strictEqual(problem, "corrupted: bucket 1: its chain is a cycle")
    assert.deepStrictEqual((found as Array<number>).at(-1), 9)
    assert.includeMembers(found as Array<number>, [5, 6, 7])
  })

  it("leaves a chain at a pointer to nothing", () => {
    const { elements, made } = hash()
    made.set64(elements[0], NOWHERE)
    assert.deepStrictEqual(keys(made), [[5, 9], "unreadable: bucket 1: element: 0xffffdeadbeef0000 is not mapped"])
  })

  it("says that buckets cannot be read", () => {
    const { made } = hash()
    made.set64(made.address + 72n, NOWHERE)
    assert.deepStrictEqual(keys(made), [[], "unreadable: bucket 0: 0xffffdeadbeef0000 is not mapped"])
  })

  it("does not believe counts that contradict one another", () => {
    const { made } = hash()
    made.set32(made.address + 80n, 2 ** 30)
    const { entries, problem } = made.read()
    assert.deepStrictEqual(entries, [])
    assert.match(problem!, /^corrupted: 4 elements, keys of 4 bytes, values of 4, but 1073741824 buckets/)
  })

  it("says which CPU's value cannot be read", () => {
    const made = new MadeHash({ type: "PERCPU_HASH", keySize: 8, valueSize: 8 })
    const element = made.element(u64(1), u64(2), u64(3))
    made.chain(0, [element])
    assert.deepStrictEqual(made.read().entries, [["0100000000000000", ["0200000000000000", "0300000000000000"]]])
    // CPU 1's copy is behind the end of the memory
    made.set64(made.valueAt(element), 0x20_0000n + BigInt(made.made.bytes.length) - 16n)
    const { entries, problem } = made.read()
    assert.deepStrictEqual(entries, [["0100000000000000", ["0000000000000000", undefined]]])
    assert.match(problem!, /^unreadable: bucket 0, CPU 1: 0x[0-9a-f]+ /)
  })
})
