import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { layout } from "../../../src/btf/Layout.ts"
import { corrupted, unreadable } from "../../../src/core/Reason.ts"
import { StructReader } from "../../../src/memory/structs/StructReader.ts"
import { MadeObjects, madeTypes, NOWHERE } from "./MadeObjects.ts"

const btf = madeTypes((blob) => {
  const byte = blob.int("signed char", 1, { signed: true })
  const int = blob.int("unsigned int", 4)
  const long = blob.int("unsigned long", 8)
  blob.struct("thing", 40, [
    { name: "flags", type: int, bits: 3, width: 5 },
    { name: "small", type: byte, bits: 8 },
    { name: "count", type: int, bits: 32 },
    { name: "pointer", type: long, bits: 64 },
    { name: "name", type: blob.array(byte, 8), bits: 128 },
    { name: "wide", type: int, bits: 288 }
  ])
  blob.struct("huge", 2 ** 17, [{ name: "first", type: int, bits: 0 }])
})
const thing = Either.getOrThrow(
  layout(btf, "thing", ["flags", "small", "count", "pointer", "name", "wide"], ["newer"])
)

const made = () => {
  const objects = new MadeObjects()
  const address = objects.object(40)
  return { objects, address, reader: new StructReader(objects.space) }
}

describe("StructReader", () => {
  it("reads fields in the width that the kernel's types give them", () => {
    const { address, objects, reader } = made()
    objects.put(address, Uint8Array.of(0b1011_0111, 0xfe, 0, 0, 0xff, 0xff, 0xff, 0xff))
    objects.set64(address + 8n, 0xffff_8882_4000_1234n)
    objects.put(address + 16n, Buffer.from("a name\0x"))
    objects.set32(address + 36n, 7)
    const struct = Either.getOrThrow(reader.struct(thing, address))
    assert.deepStrictEqual([struct.uint("flags"), struct.int("flags")], [0b10110, -10])
    assert.deepStrictEqual([struct.uint("small"), struct.int("small")], [0xfe, -2])
    assert.deepStrictEqual([struct.uint("count"), struct.int("count")], [2 ** 32 - 1, -1])
    assert.strictEqual(struct.u64("pointer"), 0xffff_8882_4000_1234n)
    assert.strictEqual(struct.int("pointer"), -0x777d_bfff_edcc)
    assert.strictEqual(struct.text("name"), "a name")
    // Read as a pointer it would go beyond the struct's end.
    assert.strictEqual(struct.u64("wide"), 7n)
    assert.strictEqual(struct.bytes("name").byteLength, 8)
    for (const absent of [struct.uint("newer"), struct.int("newer"), struct.u64("newer"), struct.text("newer")]) {
      assert.isUndefined(absent)
    }
  })

  it("says what cannot be read, and what no struct is", () => {
    const { reader } = made()
    const unmapped = Either.left(unreadable("0xffffdeadbeef0000 is not mapped"))
    assert.deepStrictEqual(reader.struct(thing, NOWHERE), unmapped)
    assert.deepStrictEqual(reader.u64(NOWHERE), unmapped)
    assert.deepStrictEqual(reader.u32(NOWHERE), unmapped)
    assert.deepStrictEqual(reader.text(NOWHERE), unmapped)
    assert.deepStrictEqual(reader.struct(thing, 0n), Either.left(unreadable("0x0 is not mapped")))
    const huge = Either.getOrThrow(layout(btf, "huge", ["first"]))
    assert.deepStrictEqual(reader.struct(huge, 0n), Either.left(corrupted("a struct huge of 131072 bytes")))
  })

  it("reads text that goes over pages, ends just before what is not mapped, or has no end", () => {
    const { objects, reader } = made()
    const { made: kernel } = objects
    const start = 0xffff_c900_0000_0000n
    const pages = [kernel.page(), kernel.page()]
    pages.forEach((page, index) => kernel.map(start + BigInt(index * 4096), page))
    kernel.bytes.set(Buffer.from("over"), pages[0] + 4092 - 0x20_0000)
    kernel.bytes.set(Buffer.from(" pages\0"), pages[1] - 0x20_0000)
    kernel.bytes.set(Buffer.from("end\0"), pages[1] + 4092 - 0x20_0000)
    assert.deepStrictEqual(reader.text(start + 4092n), Either.right("over pages"))
    assert.deepStrictEqual(reader.text(start + 8188n), Either.right("end"))
    kernel.bytes.fill(97, pages[0] - 0x20_0000, pages[0] + 4096 - 0x20_0000)
    assert.deepStrictEqual(reader.text(start), Either.right("a".repeat(512)))
    assert.deepStrictEqual(reader.text(start, 16), Either.right("a".repeat(16)))
  })
})
