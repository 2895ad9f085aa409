import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { Btf } from "../../src/btf/Btf.ts"
import { headerOf, kindCounts } from "../../src/btf/BtfHeader.ts"
import { Kind } from "../../src/btf/BtfType.ts"
import { typeText } from "../../src/btf/c/TypeText.ts"
import { compile } from "../../src/btf/render/Codec.ts"
import { BlobWriter } from "./BlobWriter.ts"

const parse = (bytes: Uint8Array, base?: Btf): Btf =>
  Either.getOrThrow(Btf.parse(bytes, base === undefined ? { subject: "test" } : { subject: "test", base }))
const messageOf = (bytes: Uint8Array): string =>
  Either.match(Btf.parse(bytes, { subject: "test" }), { onLeft: (error) => error.message, onRight: () => "no error" })
const patched = (bytes: Uint8Array, at: number, ...values: ReadonlyArray<number>): Uint8Array => {
  const copy = bytes.slice()
  copy.set(values, at)
  return copy
}

const small = (): BlobWriter => {
  const writer = new BlobWriter()
  const int = writer.int("int", 4, { signed: true })
  writer.struct("pair", 8, [{ name: "a", type: int, bits: 0 }, { name: "b", type: int, bits: 32 }])
  return writer
}

describe("the frame of a blob", () => {
  const blob = small().bytes()

  it("says what is wrong with the header", () => {
    assert.strictEqual(messageOf(new Uint8Array(0)), "test: BTF at byte 0: expected a header of 24 bytes")
    assert.strictEqual(messageOf(patched(blob, 0, 0x7f)), "test: BTF at byte 0: expected the magic number 9f eb")
    assert.strictEqual(
      messageOf(patched(blob, 0, 0xeb, 0x9f)),
      "test: BTF at byte 0: expected little-endian BTF; this blob is of a big-endian kernel"
    )
    assert.strictEqual(messageOf(patched(blob, 2, 2)), "test: BTF at byte 2: expected version 1, not 2")
    assert.match(messageOf(patched(blob, 4, 20)), /at byte 4: expected a header length/)
    assert.match(messageOf(patched(blob, 8, 0xff, 0xff)), /at byte 8: expected a type section inside/)
    assert.match(messageOf(patched(blob, 20, 0xff, 0xff)), /at byte 16: expected a string section inside/)
    assert.match(messageOf(patched(blob, blob.length - 1, 0x41)), /expected a string section that ends with NUL/)
  })

  it("refuses kinds that it does not know, since it cannot tell where they end", () => {
    assert.match(messageOf(patched(blob, 24 + 7, 20)), /at byte 24: expected a type of kind 1 to 19, not 20/)
    assert.match(messageOf(patched(blob, 24 + 7, 0)), /at byte 24: expected a type of kind 1 to 19, not 0/)
  })

  it("skips kinds of the future by the layout section, its own or its base's", () => {
    const layouts: Array<readonly [number, number]> = Array.from({ length: 34 }, () => [0, 0])
    layouts[33] = [4, 8]
    const writer = small()
    const future = writer.type(33, { name: "future", third: 8, vlen: 2, body: [1, 2, 3, 4, 5] })
    const after = writer.int("after", 2)
    const bytes = writer.bytes(32, layouts)
    const btf = parse(bytes)
    assert.deepStrictEqual(btf.type(future), { kind: "UNKNOWN", id: future, name: "future", number: 33 })
    assert.strictEqual(btf.nameOf(after), "after")
    assert.strictEqual(btf.kindOf(future), 33)
    assert.isUndefined(btf.sizeOf(future))
    assert.deepStrictEqual(btf.idsByName("future"), [future])
    assert.deepStrictEqual(kindCounts(btf), [
      { kind: "INT", count: 2 },
      { kind: "STRUCT", count: 1 },
      { kind: "KIND_33", count: 1 }
    ])
    const { layoutLength, layoutOffset } = headerOf(bytes)
    assert.deepStrictEqual([layoutOffset, layoutLength], [16 + 36 + 32 + 16, 34 * 4])
    assert.include(typeText(btf, future), "future is of kind 33")
    assert.deepStrictEqual(compile(btf, future).tree(new DataView(new ArrayBuffer(8)), 0), {
      _tag: "unsupported",
      reason: "a type of kind 33, which this reader does not know"
    })

    const module = new BlobWriter({ endId: btf.endId, strings: writer.stringLength })
    module.type(33, { name: "future", third: 8, vlen: 0, body: [9] })
    const last = module.int("last", 1)
    assert.strictEqual(parse(module.bytes(), btf).nameOf(last), "last")
    const alone = small()
    alone.type(33, { name: "future" })
    assert.match(messageOf(alone.bytes()), /expected a type of kind 1 to 19, not 33: .* no layout section/)
  })

  it("says what is wrong with a layout section", () => {
    const layouts: Array<readonly [number, number]> = Array.from({ length: 34 }, () => [0, 0])
    const writer = small()
    writer.type(33, { name: "future" })
    const bytes = writer.bytes(32, layouts)
    assert.isTrue(Either.isRight(Btf.parse(bytes, { subject: "test" })))
    assert.match(messageOf(patched(bytes, 24, 2)), /at byte 24: expected a layout section of whole words/)
    assert.match(messageOf(patched(bytes, 24, 4)), /at byte 24: expected a layout section between types and strings/)
    assert.match(messageOf(patched(bytes, 28, 0xfc)), /at byte 24: expected a layout section between types and strings/)
    assert.match(messageOf(patched(bytes, 28, 33 * 4)), /expected a type of kind 1 to 19, not 33/)
    layouts[33] = [3, 0]
    assert.match(messageOf(writer.bytes(32, layouts)), /whole words in the layout of kind 33, not 3 and 0 bytes/)
  })

  it("reads more than 65535 values of an enum", () => {
    const writer = new BlobWriter()
    const many = Array.from({ length: 70_000 }, (_, index) => [`V${index}`, index] as const)
    const big = writer.enum32("big", many)
    const int = writer.int("after", 4)
    const btf = parse(writer.bytes())
    const type = btf.type(big)
    assert(type?.kind === "ENUM")
    assert.strictEqual(type.values.length, 70_000)
    assert.deepStrictEqual(type.values.at(-1), { name: "V69999", value: 69_999 })
    assert.strictEqual(btf.nameOf(int), "after")
  })

  it("refuses a record that runs out of the section, and a name outside the strings", () => {
    assert.match(messageOf(patched(blob, 40 + 4, 3)), /at byte 40: expected a type record inside the type section/)
    assert.match(messageOf(patched(blob, 24, 0xff)), /at byte 24: expected a name inside the string section/)
  })

  it("fails for every prefix", () => {
    for (let length = 0; length < blob.length; length++) {
      assert.isTrue(Either.isLeft(Btf.parse(blob.subarray(0, length), { subject: "test" })), `${length} bytes`)
    }
    assert.isTrue(Either.isRight(Btf.parse(blob, { subject: "test" })))
  })

  it("reads a longer header of the future, and a blob that lies askew in its buffer", () => {
    assert.strictEqual(parse(small().bytes(32)).nameOf(2), "pair")
    const askew = new Uint8Array(blob.length + 3)
    askew.set(blob, 3)
    assert.deepStrictEqual(parse(askew.subarray(3)).idsByName("pair"), [2])
  })
})

describe("types", () => {
  it("decodes every kind, 1 to 19", () => {
    const writer = new BlobWriter()
    const int = writer.int("int", 4, { signed: true })
    const pointer = writer.ref(Kind.PTR, int)
    const array = writer.array(int, 3)
    writer.struct("s", 8, [{ name: "x", type: int, bits: 0, width: 5 }, { name: "", type: pointer, bits: 0, width: 0 }])
    writer.struct("u", 4, [{ name: "y", type: int, bits: 0 }], Kind.UNION)
    writer.enum32("e", [["MINUS", -1], ["ONE", 1]], true)
    writer.type(Kind.FWD, { name: "ahead", flag: true })
    for (const kind of [Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT]) writer.ref(kind, array, "t")
    writer.type(Kind.FUNC, { name: "f", third: 13, vlen: 1 })
    writer.type(Kind.FUNC_PROTO, { third: int, vlen: 2, body: [writer.string("arg"), int, 0, 0] })
    writer.type(Kind.VAR, { name: "v", third: int, body: [1] })
    writer.type(Kind.DATASEC, { name: ".bss", third: 16, vlen: 1, body: [14, 8, 4] })
    writer.type(Kind.FLOAT, { name: "double", third: 8 })
    writer.type(Kind.DECL_TAG, { name: "tag", third: 4, body: [0xffff_ffff] })
    writer.type(Kind.TYPE_TAG, { name: "user", third: int })
    writer.enum64("big", [["ALL", 2n ** 64n - 1n], ["SMALL", 7n]])
    writer.enum64("low", [["LEAST", -(2n ** 63n)], ["MINUS", -1n]], true)
    const btf = parse(writer.bytes())
    const types = Array.from({ length: btf.endId }, (_, id) => btf.type(id))
    assert.deepStrictEqual(types, [
      { kind: "VOID", id: 0 },
      { kind: "INT", id: 1, name: "int", size: 4, signed: true, char: false, bool: false, bitOffset: 0, bits: 32 },
      { kind: "PTR", id: 2, name: "", type: 1 },
      { kind: "ARRAY", id: 3, type: 1, indexType: 0, count: 3 },
      {
        kind: "STRUCT",
        id: 4,
        name: "s",
        size: 8,
        members: [{ name: "x", type: 1, bitOffset: 0, bitSize: 5 }, { name: "", type: 2, bitOffset: 0, bitSize: 0 }]
      },
      { kind: "UNION", id: 5, name: "u", size: 4, members: [{ name: "y", type: 1, bitOffset: 0, bitSize: 0 }] },
      {
        kind: "ENUM",
        id: 6,
        name: "e",
        size: 4,
        signed: true,
        values: [{ name: "MINUS", value: -1 }, { name: "ONE", value: 1 }]
      },
      { kind: "FWD", id: 7, name: "ahead", of: "union" },
      { kind: "TYPEDEF", id: 8, name: "t", type: 3 },
      { kind: "VOLATILE", id: 9, name: "t", type: 3 },
      { kind: "CONST", id: 10, name: "t", type: 3 },
      { kind: "RESTRICT", id: 11, name: "t", type: 3 },
      { kind: "FUNC", id: 12, name: "f", type: 13, linkage: 1 },
      { kind: "FUNC_PROTO", id: 13, returns: 1, parameters: [{ name: "arg", type: 1 }, { name: "", type: 0 }] },
      { kind: "VAR", id: 14, name: "v", type: 1, linkage: 1 },
      { kind: "DATASEC", id: 15, name: ".bss", size: 16, variables: [{ type: 14, offset: 8, size: 4 }] },
      { kind: "FLOAT", id: 16, name: "double", size: 8 },
      { kind: "DECL_TAG", id: 17, name: "tag", type: 4, component: -1, attribute: false },
      { kind: "TYPE_TAG", id: 18, name: "user", type: 1, attribute: false },
      {
        kind: "ENUM64",
        id: 19,
        name: "big",
        size: 8,
        signed: false,
        values: [{ name: "ALL", value: 2n ** 64n - 1n }, { name: "SMALL", value: 7 }]
      },
      {
        kind: "ENUM64",
        id: 20,
        name: "low",
        size: 8,
        signed: true,
        values: [{ name: "LEAST", value: -(2n ** 63n) }, { name: "MINUS", value: -1 }]
      }
    ])
    assert.isUndefined(btf.type(21))
    assert.isUndefined(btf.type(2 ** 32 - 1))
    assert.strictEqual(btf.sizeOf(array), 12)
    assert.strictEqual(btf.sizeOf(10), 12)
    assert.strictEqual(btf.sizeOf(14), 4)
    for (const id of [0, 7, 12, 13, 17, 21]) assert.isUndefined(btf.sizeOf(id), `type ${id}`)
  })

  it("gives up on modifiers that go round, and on sizes of 4 GiB", () => {
    const writer = new BlobWriter()
    const self = writer.ref(Kind.TYPEDEF, 1, "self")
    writer.ref(Kind.CONST, 3)
    writer.ref(Kind.VOLATILE, 2)
    const int = writer.int("int", 4)
    const wide = writer.array(writer.array(writer.array(int, 2 ** 32 - 1), 2 ** 32 - 1), 2 ** 32 - 1)
    const own = writer.type(Kind.ARRAY, { body: [wide + 1, 0, 2] })
    const fits = writer.array(int, 2 ** 30 - 1)
    const tooBig = writer.array(int, 2 ** 30)
    const btf = parse(writer.bytes())
    assert.strictEqual(btf.kindOf(btf.peel(self)), Kind.TYPEDEF)
    for (const id of [self, 2, 3, wide, own, tooBig]) assert.isUndefined(btf.sizeOf(id), `type ${id}`)
    assert.strictEqual(btf.sizeOf(fits), 2 ** 32 - 4)
  })

  it("cuts a name that no kernel would accept", () => {
    const writer = new BlobWriter()
    writer.int("n".repeat(100_000), 4)
    assert.strictEqual(parse(writer.bytes()).nameOf(1), "n".repeat(512))
  })
})

describe("names", () => {
  it("finds every type of a name, also the first and the last string, and none of a part", () => {
    const writer = new BlobWriter()
    const first = writer.int("first", 4)
    const offset = writer.string("twice")
    const struct = writer.type(Kind.STRUCT, { name: offset, third: 4 })
    const fwd = writer.type(Kind.FWD, { name: offset })
    const last = writer.int("last", 4)
    const btf = parse(writer.bytes())
    assert.deepStrictEqual(btf.idsByName("first"), [first])
    assert.deepStrictEqual(btf.idsByName("twice"), [struct, fwd])
    assert.deepStrictEqual(btf.idsByName("last"), [last])
    for (const name of ["", "fir", "irst", "wice", "las", "lastx", "first\0twice"]) {
      assert.deepStrictEqual(btf.idsByName(name), [], JSON.stringify(name))
    }
  })

  it("looks past a copy of the string that names no type", () => {
    const writer = new BlobWriter()
    writer.string("member")
    const id = writer.type(Kind.INT, { name: writer.string("member"), third: 4, body: [32] })
    assert.deepStrictEqual(parse(writer.bytes()).idsByName("member"), [id])
  })
})

describe("split BTF", () => {
  it("continues the base's ids and strings", () => {
    const below = small()
    const base = parse(below.bytes())
    const writer = new BlobWriter({ endId: base.endId, strings: below.stringLength })
    const own = writer.struct("module_thing", 16, [{ name: "pair", type: 2, bits: 0 }])
    const shared = writer.type(Kind.TYPEDEF, { name: 1, third: 2 }) // "int", a string of the base
    const btf = parse(writer.bytes(), base)
    assert.deepStrictEqual([base.firstId, base.endId, btf.firstId, btf.endId], [1, 3, 3, 5])
    assert.deepStrictEqual(btf.idsByName("pair"), [2])
    assert.deepStrictEqual(btf.idsByName("module_thing"), [own])
    assert.deepStrictEqual(btf.idsByName("int"), [1, shared])
    assert.strictEqual(btf.nameOf(shared), "int")
    assert.strictEqual(btf.sizeOf(shared), 8)
    assert.deepStrictEqual(btf.type(own), {
      kind: "STRUCT",
      id: 3,
      name: "module_thing",
      size: 16,
      members: [{ name: "pair", type: 2, bitOffset: 0, bitSize: 0 }]
    })
    assert.strictEqual(btf.type(2), base.type(2))
    assert.isUndefined(base.type(3))
  })

  it("is not read without its base", () => {
    const writer = new BlobWriter({ endId: 10, strings: 100 })
    writer.int("int", 4)
    assert.match(messageOf(writer.bytes()), /expected a string section that starts with NUL/)
  })
})
