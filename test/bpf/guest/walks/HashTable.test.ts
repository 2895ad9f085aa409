import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { type HashTable, readHashTable, roundUp8 } from "../../../../src/bpf/guest/walks/HashTable.ts"
import { kvaOffset, kvaPage } from "../../../../src/core/Address.ts"
import { formatReason, type Reason, toReason } from "../../../../src/core/Reason.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeMaps } from "../MadeMaps.ts"

const LAYOUT = { bucketSize: 16, bucketFirst: 0, next: 0, key: 48 }
const OF = { buckets: 72, count: 80, elements: 4, valueSize: 8, end: undefined, layout: LAYOUT }

/** A map at `address` with keys of `keySize` bytes, `buckets` behind its pointer at 72, and their number at 80. */
const table = (
  { buckets = 0x1008n, count = 4, keySize = 4 },
  of: Partial<Parameters<typeof readHashTable>[1]> = {},
  address?: (made: MadeMaps) => bigint
): HashTable | string => {
  const made = new MadeMaps()
  const at = address?.(made) ?? made.map({ type: "HASH", keySize, valueSize: 8, maxEntries: 4, bytes: 96 })
  if (address === undefined) {
    made.set64(at + 72n, buckets)
    made.set32(at + 80n, count)
  }
  const { kernel } = made
  const map = { info: { keySize }, kernel, space: kernel.space, page: kvaPage(at), offset: kvaOffset(at) }
  const read = readHashTable(map as Parameters<typeof readHashTable>[0], { ...OF, ...of })
  return Either.isRight(read) ? read.right : formatReason(toReason(read.left as Reason))
}
const limitOf = (...given: Parameters<typeof table>): number | undefined => {
  const read = table(...given)
  return typeof read === "string" ? undefined : read.elementLimit
}

describe("a table of buckets", () => {
  it("is as the map says: where the buckets are, their number, the sizes", () => {
    const read = table({ buckets: 0xffff_8880_0000_1008n, count: 8 })
    if (typeof read === "string") return assert.fail(read)
    assert.deepInclude(read, { bucketCount: 8, keySize: 4, valueSize: 8, bucketsOffset: 8, layout: LAYOUT })
    assert.strictEqual(read.bucketsPage, kvaPage(0xffff_8880_0000_1000n))
  })

  it("may have the logarithm of the number of its buckets, and keys of another size than the map's", () => {
    assert.deepInclude(table({ count: 3 }, { isLog: true, keySize: 8 }), { bucketCount: 8, keySize: 8 })
  })

  it("is refused with more buckets than the memory has room for, and with keys that cannot be", () => {
    assert.strictEqual(table({ count: 2 ** 30 }), `corrupted: ${2 ** 30} buckets, keys of 4 bytes`)
    assert.strictEqual(table({ count: 200 }, { isLog: true }), `corrupted: ${2 ** 200} buckets, keys of 4 bytes`)
    assert.strictEqual(table({ keySize: 0 }), "corrupted: 4 buckets, keys of 0 bytes")
    assert.strictEqual(table({ keySize: 2 ** 31 }), `corrupted: 4 buckets, keys of ${2 ** 31} bytes`)
  })

  it("says that the map's own fields cannot be read", () => {
    assert.match(String(table({}, {}, () => NOWHERE)), /^unreadable: 0xffffdeadbeef0000 is not mapped$/)
    // the pointer is there, the number behind the memory's end
    assert.match(String(table({}, {}, (made) => made.atTheEnd(80))), /^unreadable: /)
  })

  it("has no more elements than the map may have with some to spare, nor than fit the memory", () => {
    assert.strictEqual(limitOf({}), 4 + 8192)
    const fit = Math.ceil(new MadeMaps().kernel.memory.size / (48 + 4 + 8))
    assert.strictEqual(limitOf({}, { elements: undefined }), fit)
    assert.strictEqual(limitOf({}, { elements: 2 ** 32 }), fit)
  })

  it("is laid out in words of 8 bytes", () => {
    assert.deepStrictEqual([0, 1, 7, 8, 9].map(roundUp8), [0, 8, 8, 8, 16])
  })
})
