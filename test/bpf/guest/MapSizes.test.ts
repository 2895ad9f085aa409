import { assert, describe, it } from "@effect/vitest"
import { type MadeMapOf, MadeMaps } from "./MadeMaps.ts"

/** The problem of a map whose `struct bpf_array` or `struct bpf_htab` has these words at 72, 76, 80 and 84. */
const problemWith = (
  map: Omit<MadeMapOf, "bytes">,
  words: readonly [number, number, number, number]
): string | null => {
  const made = new MadeMaps()
  const address = made.map({ ...map, bytes: 4096 })
  words.forEach((word, index) => made.set32(address + BigInt(72 + index * 4), word))
  return made.read().problem
}
const ARRAY = { type: "ARRAY", keySize: 4, valueSize: 5, maxEntries: 3 } as const
const HASH = { type: "HASH", keySize: 5, valueSize: 9, maxEntries: 3 } as const
const SAYS = "corrupted: 3 elements, keys of"

describe("the sizes that a map claims", () => {
  it("of an array are believed where elem_size is the value's rounded up, and the mask that of the next power of two", () => {
    assert.isNull(problemWith(ARRAY, [8, 3, 0, 0]))
    for (const [size, mask] of [[5, 3], [16, 3], [8, 1], [8, 7], [8, 4]] as const) {
      assert.strictEqual(
        problemWith(ARRAY, [size, mask, 0, 0]),
        `${SAYS} 4 bytes, values of 5, but room for elements of ${size} bytes up to ${mask}`
      )
    }
  })

  it("of a hash map are believed where elem_size is that of all parts, each rounded up to 8", () => {
    // an odd pointer to the buckets' page ends nothing here: the map is refused before, or has no entries to read
    const problem = (buckets: number, size: number) => problemWith(HASH, [0, 0, buckets, size])
    assert.notInclude(problem(4, 48 + 8 + 16), "but")
    for (const [buckets, size] of [[4, 48 + 5 + 9], [4, 80], [2, 72], [8, 72]] as const) {
      assert.strictEqual(
        problem(buckets, size),
        `${SAYS} 5 bytes, values of 9, but ${buckets} buckets for elements of ${size} bytes`
      )
    }
  })

  it("of a per-CPU hash have a pointer in place of the value", () => {
    const map = { ...HASH, type: "PERCPU_HASH" } as const
    assert.notInclude(problemWith(map, [0, 0, 4, 48 + 8 + 8]), "but")
    assert.include(problemWith(map, [0, 0, 4, 48 + 8 + 16]), "but 4 buckets for elements of 72 bytes")
  })

  it("are not those of a kernel where values have bytes that cannot be, or none that must be", () => {
    const claims = (map: Omit<MadeMapOf, "bytes">) => problemWith(map, [8, 3, 0, 0])
    assert.strictEqual(claims({ ...ARRAY, valueSize: 0 }), `${SAYS} 4 bytes, values of 0`)
    assert.strictEqual(claims({ ...HASH, valueSize: 2 ** 22 }), `${SAYS} 5 bytes, values of 4194304`)
    assert.strictEqual(claims({ ...HASH, type: "RINGBUF" }), `${SAYS} 5 bytes, values of 9`)
    assert.strictEqual(claims({ ...ARRAY, type: "PROG_ARRAY", valueSize: 9 }), `${SAYS} 4 bytes, values of 9`)
  })

  it("do not fit a memory that is smaller than the array", () => {
    assert.strictEqual(
      problemWith({ ...ARRAY, maxEntries: 2 ** 31 }, [8, 2 ** 31 - 1, 0, 0]),
      "corrupted: 2147483648 elements, keys of 4 bytes, values of 5 do not fit the guest's memory"
    )
  })
})
