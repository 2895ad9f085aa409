import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"

const counting = (length: number, from = 0): Uint8Array => Uint8Array.from({ length }, (_, i) => i + from)
/** 0x1000..0x1010 in two pieces, a hole, then 0x1020..0x1028. */
const pieces = (writable = false) =>
  new GuestMemory([
    { start: 0x1020, bytes: counting(8, 0x80) },
    { start: 0x1000, bytes: counting(10) },
    { start: 0x100a, bytes: counting(6, 10) }
  ], { writable })

describe("GuestMemory", () => {
  it("reads across the seam of two pieces", () => {
    const memory = pieces()
    assert.strictEqual(memory.u8(0x100a), 10)
    assert.strictEqual(memory.u16(0x1009), 0x0a09)
    assert.strictEqual(memory.u32(0x1008), 0x0b0a0908)
    assert.strictEqual(memory.u64(0x1003), 0x0a09080706050403n)
    assert.deepStrictEqual(memory.bytes(0x1008, 4), counting(4, 8))
    assert.isTrue(memory.has(0x1000, 16))
  })

  it("gives absence, not other bytes, in a hole and beyond the ends", () => {
    const memory = pieces()
    for (const pa of [0xfff, 0x1010, 0x101f, 0x1028, -1, 2 ** 52, NaN]) assert.strictEqual(memory.u8(pa), -1, `${pa}`)
    assert.strictEqual(memory.u32(0x100e), -1)
    assert.strictEqual(memory.u32(0xffe), -1)
    assert.strictEqual(memory.u64(0x1024), undefined)
    assert.strictEqual(memory.bytes(0x100c, 0x20), undefined)
    assert.isFalse(memory.seek(0x1026, 4))
    assert.strictEqual(memory.size, 24)
    assert.strictEqual(memory.end, 0x1028)
  })

  it("borrows inside a piece and copies across two", () => {
    const first = counting(10)
    const memory = new GuestMemory([{ start: 0, bytes: first }, { start: 10, bytes: counting(10) }])
    const borrowed = memory.bytes(2, 4)!
    const copied = memory.bytes(8, 4)!
    first.fill(0xff)
    assert.deepStrictEqual([...borrowed], [255, 255, 255, 255])
    assert.deepStrictEqual([...copied], [8, 9, 0, 1])
  })

  it("writes all of the bytes or none, and none in memory that is mapped read-only", () => {
    const memory = pieces(true)
    assert.isTrue(memory.write(0x1008, Uint8Array.of(1, 2, 3, 4)))
    assert.strictEqual(memory.u32(0x1008), 0x04030201)
    assert.isFalse(memory.write(0x100e, Uint8Array.of(9, 9, 9, 9)))
    assert.strictEqual(memory.u8(0x100e), 14)
    const readOnly = pieces()
    assert.isFalse(readOnly.write(0x1000, Uint8Array.of(9)))
    assert.strictEqual(readOnly.u8(0x1000), 0)
  })

  it("refuses regions that overlap, lie beyond 52 bits, or hold nothing", () => {
    const messageOf = (...regions: ReadonlyArray<readonly [number, number]>) =>
      Either.match(
        GuestMemory.make(regions.map(([start, length]) => ({ start, bytes: new Uint8Array(length) })), {
          subject: "m"
        }),
        {
          onLeft: (error) => error.message,
          onRight: () => "made"
        }
      )
    assert.strictEqual(
      messageOf([0, 16], [8, 16]),
      "m: memory layout at byte 8: expected no region to start before 0x10, where the one before it ends"
    )
    assert.include(messageOf([2 ** 52, 1]), "a region below 2^52")
    assert.include(messageOf([-4, 8]), "a region below 2^52")
    assert.include(messageOf([0.5, 8]), "a region below 2^52")
    assert.include(messageOf([0, 0]), "at least one byte of memory")
    assert.include(messageOf(), "at least one byte of memory")
    assert.strictEqual(messageOf([0, 8], [8, 8]), "made")
  })

  const layouts = FastCheck.array(FastCheck.tuple(FastCheck.nat(6), FastCheck.integer({ min: 1, max: 20 })), {
    minLength: 1,
    maxLength: 8
  })
  it.prop("agrees with a byte map of the same regions", [
    layouts,
    FastCheck.array(FastCheck.tuple(FastCheck.integer({ min: -3, max: 220 }), FastCheck.nat(24)))
  ], ([gaps, reads]) => {
    const model = new Map<number, number>()
    let at = 0
    const regions = gaps.map(([gap, length]) => {
      const start = at + gap
      at = start + length
      for (let i = 0; i < length; i++) model.set(start + i, (start * 7 + i * 13) & 255)
      return { start, bytes: Uint8Array.from({ length }, (_, i) => (start * 7 + i * 13) & 255) }
    })
    const memory = new GuestMemory(regions)
    for (const [pa, length] of reads) {
      const expected = Array.from({ length }, (_, i) => model.get(pa + i))
      const whole = length > 0 && expected.every((byte) => byte !== undefined)
      if (length > 0) {
        assert.strictEqual(memory.has(pa, length), whole)
        assert.deepStrictEqual(memory.bytes(pa, length) && [...memory.bytes(pa, length)!], whole ? expected : undefined)
      }
      assert.strictEqual(memory.u8(pa), model.get(pa) ?? -1)
    }
  })
})
