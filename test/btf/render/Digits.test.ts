import { assert, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { writeHex, writeHexByte, writeI32, writeI64, writeU32, writeU64 } from "../../../src/btf/render/Digits.ts"

const out = new DataView(new ArrayBuffer(64))
const written = (write: (out: DataView, at: number) => number): string => {
  const end = write(out, 5)
  return Buffer.from(out.buffer, 5, end - 5).toString()
}
const BILLION = 10n ** 9n
/** Numbers of every length, and what lies around each power of ten and two and around billions. */
const near = (bits: number): FastCheck.Arbitrary<bigint> => {
  const edges = [
    ...Array.from({ length: 20 }, (_, n) => 10n ** BigInt(n)),
    ...Array.from({ length: bits + 1 }, (_, n) => 2n ** BigInt(n))
  ]
  const billions = FastCheck.bigInt(0n, 2n ** BigInt(bits) / BILLION).map((n) => n * BILLION) // numbers are written by billions
  const edge = FastCheck.oneof(FastCheck.constantFrom(...edges), billions)
  return FastCheck.oneof(
    FastCheck.tuple(edge, FastCheck.bigInt(-2n, 2n)).map(([edge, delta]) => edge + delta),
    FastCheck.tuple(FastCheck.bigInt(0n, 2n ** BigInt(bits) - 1n), FastCheck.bigInt(0n, BigInt(bits))).map(
      ([n, shift]) => n >> shift
    )
  )
}
const high = (n: bigint): number => Number(BigInt.asUintN(32, n >> 32n))
const low = (n: bigint): number => Number(BigInt.asUintN(32, n))
const json = (n: bigint): string => n >= -(2n ** 53n) + 1n && n < 2n ** 53n ? `${n}` : `"${n}"`

it.prop("writes 32-bit integers", [near(32)], ([n]) => {
  const unsigned = BigInt.asUintN(32, n)
  const signed = BigInt.asIntN(32, n)
  assert.strictEqual(written((out, at) => writeU32(out, at, Number(unsigned))), `${unsigned}`)
  assert.strictEqual(written((out, at) => writeI32(out, at, Number(signed))), `${signed}`)
  assert.strictEqual(written((out, at) => writeI32(out, at, Number(BigInt.asIntN(32, -n)))), `${BigInt.asIntN(32, -n)}`)
}, { fastCheck: { numRuns: 5000 } })

it.prop("writes 64-bit integers, in quotes when JSON would round them", [near(64)], ([n]) => {
  const unsigned = BigInt.asUintN(64, n)
  assert.strictEqual(written((out, at) => writeU64(out, at, high(n), low(n))), json(unsigned))
  for (const signed of [BigInt.asIntN(64, n), BigInt.asIntN(64, -n)]) {
    assert.strictEqual(written((out, at) => writeI64(out, at, high(signed), low(signed))), json(signed))
  }
}, { fastCheck: { numRuns: 5000 } })

it.prop("writes hex without leading zeros", [near(64)], ([n]) => {
  assert.strictEqual(written((out, at) => writeHex(out, at, high(n), low(n))), BigInt.asUintN(64, n).toString(16))
}, { fastCheck: { numRuns: 5000 } })

it("writes each byte as two hex digits", () => {
  for (let byte = 0; byte < 256; byte++) {
    const text = written((out, at) => writeHexByte(out, at, byte))
    assert.strictEqual(text, byte.toString(16).padStart(2, "0"))
  }
})

it("scribbles on no more than 3 bytes behind what it writes", () => {
  for (const n of [0n, 9n, 10n, 999n, 1000n, 123_456n, 2n ** 31n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 64n - 1n]) {
    for (const write of [writeU64, writeI64, writeHex]) {
      new Uint8Array(out.buffer).fill(0)
      const end = write(out, 5, high(n), low(n))
      assert.deepStrictEqual(Array.from(new Uint8Array(out.buffer, end + 3)), Array.from({ length: 61 - end }, () => 0))
      assert.deepStrictEqual(Array.from(new Uint8Array(out.buffer, 0, 5)), [0, 0, 0, 0, 0])
    }
  }
})
