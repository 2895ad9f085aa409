import { assert, describe, it } from "@effect/vitest"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { hex, MadeMaps } from "../MadeMaps.ts"

const MODULE = 0xffff_ffff_c000_1230n

/** Four places for stacks of at most four frames; `BPF_F_STACK_BUILD_ID` where frames take 32 bytes. */
const stacks = (flags = 0) => {
  const made = new MadeMaps()
  const valueSize = 4 * (flags === 0 ? 8 : 32)
  const map = made.map({ type: "STACK_TRACE", keySize: 4, valueSize, maxEntries: 3, flags, bytes: 96 + 4 * 8 })
  made.set32(map + 84n, 4)
  const point = (id: number, bucket: bigint) => made.set64(map + BigInt(96 + id * 8), bucket)
  const bucket = (address: bigint, frames: number, ...words: ReadonlyArray<bigint>) => {
    made.set32(address + 12n, frames)
    made.set64(address + 24n, ...words)
    return address
  }
  return { made, map, point, bucket }
}
/** Stacks 0, 1 and 3: a function's start and what lies 1 behind it; a module's; both. */
const known = () => {
  const { made, ...rest } = stacks()
  const start = made.symbol("_stext")
  const stack = (...frames: ReadonlyArray<bigint>) => rest.bucket(made.object(24 + 32), frames.length, ...frames)
  const buckets = [stack(start, start + 1n), stack(MODULE), stack(MODULE, start)] as const
  ;[0, 1, 3].forEach((id, index) => rest.point(id, buckets[index]))
  return { made, ...rest, buckets }
}
const FIRST = [0, ["_stext+0x0", "_stext+0x1"]]
const LAST = [3, [hex(MODULE), "_stext+0x0"]]

describe("StackTraces", () => {
  it("gives the frames of each place that is taken, by symbol where there is one", () => {
    assert.deepStrictEqual(known().made.read(), {
      entries: [FIRST, [1, [hex(MODULE)]], LAST],
      problem: null,
      details: null
    } as never)
  })

  it("leaves a stack whose pointer leads nowhere, and gives the others", () => {
    const { made, point } = known()
    point(1, NOWHERE)
    const { entries, problem } = made.read()
    assert.deepStrictEqual(entries, [FIRST, LAST] as never)
    assert.strictEqual(problem, "unreadable: entry 1: 0xffffdeadbeef0000 is not mapped")
  })

  it("leaves a stack that the memory's end cuts, and gives the others", () => {
    const { bucket, made, point } = known()
    const cut = made.atTheEnd(24 + 8)
    point(1, bucket(cut, 2, MODULE))
    const { entries, problem } = made.read()
    assert.deepStrictEqual(entries, [FIRST, LAST] as never)
    assert.strictEqual(problem, `unreadable: entry 1: ${hex(made.atTheEnd(0))} is not mapped`)
  })

  it("gives as many frames as the map has room for of a stack that claims more", () => {
    const { buckets: [, second], made } = known()
    made.set32(second + 12n, 1000)
    const { entries, problem } = made.read()
    assert.deepStrictEqual([entries[0], entries[2]], [FIRST, LAST] as never)
    assert.strictEqual((entries[1][1] as ReadonlyArray<unknown>).length, 4)
    assert.strictEqual(problem, "corrupted: entry 1: has 8000 bytes, room for 32")
  })

  it("does not believe more places than twice the stacks", () => {
    const { made, map } = known()
    made.set32(map + 84n, 7)
    const { entries, problem } = made.read()
    assert.deepStrictEqual([entries, problem], [[], "corrupted: 7 buckets for 3 stacks"])
  })

  it("gives build ids with offsets, and an address where the file could not be told", () => {
    const { bucket, made, point } = stacks(1 << 5)
    const taken = bucket(made.object(24 + 64), 2)
    made.set32(taken + 24n, 1)
    made.put(taken + 28n, Buffer.alloc(20, 0xab))
    made.set64(taken + 48n, 0x1234n)
    made.set32(taken + 56n, 2)
    made.set64(taken + 80n, 0x7f00_0000_1000n)
    point(2, taken)
    assert.deepStrictEqual(made.read().entries, [[2, [
      { buildId: "ab".repeat(20), offset: 0x1234 },
      { ip: "0x7f0000001000" }
    ]]] as never)
  })
})
