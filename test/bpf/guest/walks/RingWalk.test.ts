import { assert, describe, it } from "@effect/vitest"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeMaps } from "../MadeMaps.ts"

/** A ring of a page, of which the bytes from 8 up to 56 are not consumed: a committed, a busy and a discarded record. */
const ring = () => {
  const made = new MadeMaps()
  const map = made.map({ type: "RINGBUF", keySize: 0, valueSize: 0, maxEntries: 4096, bytes: 80 })
  const address = made.object(192 + 4096)
  made.set64(map + 72n, address)
  made.set64(address, 4095n)
  made.set64(address + 64n, 8n)
  made.set64(address + 128n, 56n)
  const record = (at: number, header: number, data: string) => {
    made.set32(address + BigInt(192 + at), header)
    made.put(address + BigInt(192 + at + 8), Buffer.from(data, "hex"))
  }
  record(8, 3, "aabbcc")
  record(24, 0x8000_0002, "dddd")
  record(40, 0x4000_0001, "ee")
  return { made, map, address, record }
}

describe("RingWalk", () => {
  it("gives the records between the positions, with their states", () => {
    const { entries, problem } = ring().made.read()
    assert.isNull(problem)
    assert.deepStrictEqual(entries, [
      [8, { state: "committed", length: 3, data: "aabbcc" }],
      [24, { state: "busy", length: 2, data: "dddd" }],
      [40, { state: "discarded", length: 1, data: "ee" }]
    ])
  })

  it("ends at a record that is longer than what is left", () => {
    const { made, record } = ring()
    record(24, 0x3fff_ffff, "")
    const { entries, problem } = made.read()
    assert.strictEqual(entries.length, 1)
    assert.strictEqual(problem, "corrupted: record at 24: has 1073741823 bytes, 24 are left; walk ended")
  })

  it("does not believe positions that user space or another size made up", () => {
    const nonsense: ReadonlyArray<readonly [at: bigint, value: bigint]> = [[64n, 4096n], [128n, 8192n], [64n, 9n], [
      0n,
      8191n
    ]]
    for (const [at, value] of nonsense) {
      const { address, made } = ring()
      made.set64(address + at, value)
      const { entries, problem } = made.read()
      assert.deepStrictEqual(entries, [])
      assert.match(problem!, /^corrupted: consumer at \d+, producer at \d+ of a ring of \d+ bytes, made as 4096$/)
    }
  })

  it("says that the ring cannot be read", () => {
    const { made, map } = ring()
    made.set64(map + 72n, NOWHERE)
    assert.strictEqual(made.read().problem, "unreadable: 0xffffdeadbeef0000 is not mapped")
  })
})
