import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { Btf } from "../../../src/btf/Btf.ts"
import { Kind } from "../../../src/btf/BtfType.ts"
import { compile } from "../../../src/btf/render/Codec.ts"
import { type Json, toJson } from "../../../src/btf/render/RenderedValue.ts"
import { encodeAt, encodeBytes, type EncodeError, encodeValue } from "../../../src/btf/render/ValueEncoder.ts"
import { BlobWriter } from "../BlobWriter.ts"
import { compileC } from "../compileC.ts"

const parse = (bytes: Uint8Array): Btf => Either.getOrThrow(Btf.parse(bytes, { subject: "test" }))
const render = (btf: Btf, typeId: number, bytes: Uint8Array): Json =>
  toJson(compile(btf, typeId).tree(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0))
const message = <A>(result: Either.Either<A, EncodeError>): string => Either.getOrThrow(Either.flip(result)).message

/** A random type, made of what the numbers say: each takes the next. */
const typeFrom = (
  writer: BlobWriter,
  leaves: ReadonlyArray<readonly [number, number]>,
  next: () => number,
  depth: number
): {
  readonly id: number
  readonly size: number
  readonly isStruct: boolean
} => {
  const pick = depth === 0 ? 0 : next() % 6
  if (pick === 1) {
    const element = typeFrom(writer, leaves, next, depth - 1)
    const count = next() % 9
    return { id: writer.array(element.id, count), size: element.size * count, isStruct: false }
  }
  if (pick >= 2 && pick <= 4) {
    const isUnion = pick === 4
    let size = 0
    const members = Array.from({ length: next() % 6 }, () => {
      const inner = typeFrom(writer, leaves, next, depth - 1)
      const at = isUnion ? 0 : size + next() % 3 // with padding
      size = Math.max(size, at + inner.size)
      const type = writer.ref(Kind.CONST, inner.id)
      return { name: inner.isStruct && next() % 2 === 0 ? "" : `m${type}`, type, bits: at * 8 }
    })
    return { id: writer.struct("s", size, members, isUnion ? Kind.UNION : Kind.STRUCT), size, isStruct: true }
  }
  const [id, size] = leaves[next() % leaves.length]
  return { id, size, isStruct: false }
}

const leavesOf = (writer: BlobWriter): ReadonlyArray<readonly [number, number]> => {
  const int = writer.int("int", 4, { signed: true })
  const bits = [[3, 0], [7, 3], [20, 10], [34, 30]].map(([width, bits], index) => ({
    name: `b${index}`,
    type: index === 3 ? writer.int("long", 8, { signed: true }) : int,
    bits,
    width
  }))
  return [
    [int, 4],
    [writer.int("char", 1), 1],
    [writer.int("unsigned short", 2), 2],
    [writer.int("unsigned long", 8), 8],
    [writer.int("_Bool", 1, { bool: true }), 1],
    [writer.enum32("e", [["A", 0], ["B", 0x41], ["C", 0x4141_4141]]), 4],
    [writer.enum64("wide", [["MINUS", -5n], ["FAR", 1n << 60n]], true), 8],
    [writer.ref(Kind.PTR, 0), 8],
    [writer.type(Kind.FLOAT, { name: "float", third: 4 }), 4],
    [writer.type(Kind.FLOAT, { name: "double", third: 8 }), 8],
    [writer.int("__int128", 16, { signed: true }), 16],
    [writer.array(writer.int("char", 1, { signed: true }), 7), 7],
    [writer.struct("fields", 8, bits), 8]
  ]
}

const numbers = FastCheck.array(FastCheck.nat(1000), { minLength: 30, maxLength: 60 })
const memory = FastCheck.oneof(
  FastCheck.uint8Array({ minLength: 1, maxLength: 200 }),
  FastCheck.array(FastCheck.constantFrom(0, 1, 0x41, 0x7f, 0x80, 0xf0, 0xff), { minLength: 1, maxLength: 200 })
    .map((list) => Uint8Array.from(list))
)

describe("the bytes of a value", () => {
  it.prop(
    "print as the JSON that they were made of",
    [numbers, memory, FastCheck.boolean()],
    ([choices, pattern, present]) => {
      const writer = new BlobWriter()
      let taken = 0
      const { id, size } = typeFrom(writer, leavesOf(writer), () => choices[taken++ % choices.length], 4)
      FastCheck.pre(size < 4000)
      const btf = parse(writer.bytes())
      const bytes = Uint8Array.from({ length: size }, (_, at) => pattern[(at * 7 + (at >> 4)) % pattern.length])
      const json = render(btf, id, bytes)
      const into = present ? bytes.map((byte) => ~byte) : new Uint8Array(size)
      const before = into.slice()
      const runs = Either.getOrThrowWith(encodeValue(btf, id, json, into), (error) => error)
      assert.deepStrictEqual(render(btf, id, into), json)
      const said = new Set(runs.flatMap(({ at, length }) => Array.from({ length }, (_, index) => at + index)))
      before.forEach((byte, at) => said.has(at) || assert.strictEqual(into[at], byte, `byte ${at} is not said`))
    },
    { fastCheck: { numRuns: 3000 } }
  )

  it.prop(
    "stay as they are when any JSON is refused",
    [numbers, FastCheck.jsonValue()],
    ([choices, json]) => {
      const writer = new BlobWriter()
      let taken = 0
      const { id, size } = typeFrom(writer, leavesOf(writer), () => choices[taken++ % choices.length], 2)
      FastCheck.pre(size < 4000)
      const into = new Uint8Array(size)
      const result = encodeValue(parse(writer.bytes()), id, json as Json, into)
      if (Either.isLeft(result)) assert.deepStrictEqual(into, new Uint8Array(size), result.left.message)
    },
    { fastCheck: { numRuns: 1000 } }
  )
})

const SOURCE = `
enum mode { OFF, SLOW = 3, FAST = -1 };
struct stat {
  struct { int a; unsigned long long big; } in;
  short cpus[4]; char name[8]; enum mode mode; _Bool on; int low : 3; unsigned high : 5; float f;
  union { unsigned word; unsigned char bytes[4]; struct { unsigned short lo, hi; }; };
  void *p; struct gone *(*call)(void); struct stat *self;
};
struct stat v = {
  .in = { -5, 1ull << 60 }, .cpus = { 1, 2, -3, 4 }, .name = "hello", .mode = FAST, .on = 1, .low = -4, .high = 17,
  .f = 0.5f, .word = 0x01020304, .p = (void *)0xffff888000001000
};
struct stat w = { .in = { 7 } };
`

describe("a struct laid out by clang", () => {
  const { btf: blob, section, symbols } = compileC(SOURCE)
  const btf = parse(blob)
  const [stat] = btf.idsByName("stat")
  const size = btf.sizeOf(stat)!
  const data = (name: string): Uint8Array => {
    const at = Number(symbols.get(name))
    return section(".data").slice(at, at + size)
  }

  it("comes out as clang's own bytes", () => {
    const into = new Uint8Array(data("v").length)
    const json = {
      in: { a: -5, big: "1152921504606846976" },
      cpus: [1, 2, -3, 4],
      name: "hello",
      mode: "FAST",
      on: true,
      low: -4,
      high: 17,
      f: 0.5,
      lo: 0x0304,
      hi: 0x0102,
      p: "0xffff888000001000"
    }
    Either.getOrThrow(encodeValue(btf, stat, json, into))
    assert.deepStrictEqual(into, data("v"))
  })

  it("is set by paths, and only where they lead", () => {
    const into = data("v")
    const set = (path: string, json: Json) => Either.getOrThrow(encodeAt(btf, stat, path, json, into))
    assert.deepStrictEqual(set("in.a", 7), [{ at: 0, length: 4 }])
    set("cpus[2]", "0x7fff")
    set("name[0]", 74)
    set("bytes[3]", 9)
    set("low", 3)
    set("call", "0x10")
    set("in", { big: 1 })
    assert.deepStrictEqual(render(btf, stat, into), {
      ...(render(btf, stat, data("v")) as object),
      in: { a: 7, big: 1 },
      cpus: [1, 2, 32767, 4],
      name: "Jello",
      low: 3,
      word: 0x09020304,
      bytes: [4, 3, 2, 9],
      hi: 0x0902,
      call: "0x10"
    })
    set("", render(btf, stat, data("w")))
    assert.deepStrictEqual(into, data("w"))
  })

  it.each<readonly [string, Json, string]>([
    ["in.a", 2 ** 31, "in.a: expected an integer from -2147483648 to 2147483647, not 2147483648"],
    ["in.a", 1.5, "in.a: expected an integer from -2147483648 to 2147483647, not 1.5"],
    [
      "in.big",
      2 ** 63,
      "in.big: expected an integer from 0 to 18446744073709551615, in quotes: JSON rounds larger numbers, not 9223372036854776000"
    ],
    ["low", 4, "low: expected an integer from -4 to 3, not 4"],
    ["on", 1, "on: expected true or false, not 1"],
    ["mode", "WARP", "mode: expected a number, or one of OFF, SLOW, FAST, not \"WARP\""],
    [
      "name",
      "12345678",
      "name: expected at most 7 printable ASCII characters, or an array of 8 numbers, not \"12345678\""
    ],
    ["cpus", [1, 2], "cpus: expected an array of 4, not [1,2]"],
    ["cpus[4]", 1, "cpus: expected an index below 4, not [4]"],
    ["f", 1e300, "f: expected a number that 4 bytes hold, not 1e+300"],
    ["in.b", 1, "in.: expected one of a, big, not b"],
    ["in.", 1, "in: expected one of a, big, not ."],
    ["in.a.b", 1, "in.a.: expected no member: it is not a struct, not b"],
    ["", { word: 1, lo: 2 }, "lo: expected what the union's other members say of the same bytes, not 2"],
    ["in", { c: 1 }, "in: expected only members that its type has: a, big, not \"c\""],
    ["in", 3, "in: expected an object, not 3"],
    ["p", "here", "p: expected an address as \"0x…\" from 0 to 18446744073709551615, not \"here\""]
  ])("%s = %j is refused, and nothing is changed", (path, json, expected) => {
    const into = data("v")
    assert.strictEqual(message(encodeAt(btf, stat, path, json, into)), expected)
    assert.deepStrictEqual(into, data("v"))
  })

  it("needs room", () => {
    assert.strictEqual(
      message(encodeAt(btf, stat, "cpus", [1, 2, 3, 4], new Uint8Array(20))),
      "cpus: expected room for 24 bytes, not 20"
    )
  })
})

describe("bytes without a type", () => {
  it("are hex digits", () => {
    const into = new Uint8Array(3)
    Either.getOrThrow(encodeBytes("0aFF10", into))
    assert.deepStrictEqual([...into], [10, 255, 16])
    Either.getOrThrow(encodeBytes("0x0b0c0D", into))
    assert.deepStrictEqual([...into], [11, 12, 13])
    for (const json of ["0aff", "0x0aff", "0x0x0aff", "0a0b0c0d", "0xzz0b0c", 1, null]) {
      assert.strictEqual(
        message(encodeBytes(json, into)),
        `the value: expected 6 hex digits, not ${JSON.stringify(json)}`
      )
    }
  })
})
