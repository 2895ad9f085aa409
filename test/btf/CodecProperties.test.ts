import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { Btf } from "../../src/btf/Btf.ts"
import { Kind } from "../../src/btf/BtfType.ts"
import { ByteSink } from "../../src/btf/render/ByteSink.ts"
import { compile } from "../../src/btf/render/Codec.ts"
import { toJson } from "../../src/btf/render/RenderedValue.ts"
import { valueText } from "../../src/btf/render/ValueText.ts"
import { BlobWriter } from "./BlobWriter.ts"

const parse = (bytes: Uint8Array): Btf => Either.getOrThrow(Btf.parse(bytes, { subject: "test" }))
const plain = (n: bigint): number | string => Number.isSafeInteger(Number(n)) ? Number(n) : n.toString()

/** The integer in `bits` bits from `bit` on, read bit by bit. */
const bitsOf = (bytes: Uint8Array, bit: number, bits: number, signed: boolean): bigint => {
  let value = 0n
  for (let index = 0; index < bits; index++) {
    const at = bit + index
    if ((bytes[at >>> 3] >>> (at & 7) & 1) === 1) value |= 1n << BigInt(index)
  }
  return signed ? BigInt.asIntN(bits, value) : value
}

const memory = FastCheck.uint8Array({ minLength: 40, maxLength: 40 })

describe("integers", () => {
  it.prop(
    "are exact for every width, place and sign, as bit-fields and whole",
    [memory, FastCheck.integer({ min: 1, max: 128 }), FastCheck.integer({ min: 0, max: 150 }), FastCheck.boolean()],
    ([bytes, bits, at, signed]) => {
      const writer = new BlobWriter()
      const int = writer.int("wide", 16, { signed })
      const bytesOf = Math.ceil(bits / 8)
      const whole = writer.int("whole", bytesOf, { signed, bits: bytesOf * 8 })
      const struct = writer.struct("s", 40, [
        { name: "field", type: int, bits: at, width: bits },
        { name: "whole", type: whole, bits: at & ~7 }
      ])
      const codec = compile(parse(writer.bytes()), struct)
      const sink = new ByteSink(1)
      codec.json(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, sink)
      assert.deepStrictEqual(JSON.parse(Buffer.from(sink.take()).toString()), {
        field: plain(bitsOf(bytes, at, bits, signed)),
        whole: plain(bitsOf(bytes, at & ~7, bytesOf * 8, signed))
      })
    },
    { fastCheck: { numRuns: 2000 } }
  )
})

/** A random type, made of what the numbers say: each takes the next. */
const typeFrom = (writer: BlobWriter, leaves: ReadonlyArray<number>, next: () => number, depth: number): {
  readonly id: number
  readonly size: number
  /** Its values, itself among them: of very many, the last are omitted. */
  readonly values: number
  readonly isStruct?: boolean
} => {
  const pick = depth === 0 ? 0 : next() % 8
  switch (pick) {
    case 1: {
      const element = typeFrom(writer, leaves, next, depth - 1)
      const count = next() % 5
      return { id: writer.array(element.id, count), size: element.size * count, values: 1 + element.values * count }
    }
    case 2: {
      const element = typeFrom(writer, leaves, next, depth - 1)
      const count = 20 + next() % 20
      return { id: writer.array(element.id, count), size: element.size * count, values: 1 + element.values * count }
    }
    case 3:
    case 4:
    case 5: {
      let size = 0
      let values = 1
      const members = Array.from({ length: next() % 6 }, (_, index) => {
        const { id, isStruct = false, size: bytes, values: inner } = typeFrom(writer, leaves, next, depth - 1)
        const member = {
          name: isStruct && next() % 2 === 0 ? "" : `m${index}"\\é`,
          type: id,
          bits: pick === 5 ? 0 : size * 8
        }
        size = pick === 5 ? Math.max(size, bytes) : size + bytes
        values += inner
        return member
      })
      const id = writer.struct("s", size, members, pick === 5 ? Kind.UNION : Kind.STRUCT)
      return { id, size, values, isStruct: true }
    }
    case 6: {
      const inner = typeFrom(writer, leaves, next, depth - 1)
      return { id: writer.ref(Kind.CONST, inner.id), size: inner.size, values: inner.values }
    }
    default: {
      const sizes = [4, 1, 2, 8, 1, 1, 4, 8, 4, 8, 16, 1]
      const which = next() % leaves.length
      return { id: leaves[which], size: sizes[which], values: 1 }
    }
  }
}

/** Types of the sizes that `typeFrom` knows. */
const leavesOf = (writer: BlobWriter): ReadonlyArray<number> => [
  writer.int("int", 4, { signed: true }),
  writer.int("char", 1),
  writer.int("unsigned short", 2),
  writer.int("long", 8, { signed: true }),
  writer.int("char", 1, { signed: true }),
  writer.int("_Bool", 1, { bool: true }),
  writer.enum32("e", [["A", 0], ["B\u0001\"", 0x41], ["C", 0x4141_4141]]),
  writer.ref(Kind.PTR, 0),
  writer.type(Kind.FLOAT, { name: "float", third: 4 }),
  writer.type(Kind.FLOAT, { name: "double", third: 8 }),
  writer.int("__int128", 16, { signed: true }),
  writer.enum32("tiny", [["T", 0x41]], true, 1)
]

describe("any type over any bytes", () => {
  const numbers = FastCheck.array(FastCheck.nat(1000), { minLength: 30, maxLength: 60 })
  const chars = FastCheck.oneof(
    FastCheck.uint8Array({ minLength: 0, maxLength: 3000 }),
    FastCheck.array(FastCheck.constantFrom(0, 0x22, 0x41, 0x5c, 0x7e, 0x7f), { maxLength: 3000 }).map((list) =>
      Uint8Array.from(list)
    )
  )
  it.prop("is the same as JSON and as a tree, whole or truncated", [numbers, chars], ([choices, bytes]) => {
    const writer = new BlobWriter()
    const leaves = leavesOf(writer)
    let taken = 0
    const { id, size, values } = typeFrom(writer, leaves, () => choices[taken++ % choices.length], 5)
    FastCheck.pre(size < 3000 && values <= 8192) // what has no size can still be too much to show
    const btf = parse(writer.bytes())
    assert.strictEqual(btf.sizeOf(id), size)
    const codec = compile(btf, id)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    const sink = new ByteSink(1)
    codec.json(view, 0, sink)
    const tree = codec.tree(view, 0)
    const json: unknown = JSON.parse(Buffer.from(sink.take()).toString())
    assert.deepStrictEqual(json, toJson(tree))
    assert.isAbove(valueText(tree, { width: 60 }).length, 0)
    assert.strictEqual(JSON.stringify(json).includes("{\"$"), bytes.length < size)
  }, { fastCheck: { numRuns: 2000 } })

  it.prop(
    "never looks like another value, as JSON or as text, once the bytes stand beside it that its form hides",
    [numbers, FastCheck.gen()],
    ([choices, gen]) => {
      const writer = new BlobWriter()
      const leaves = [...leavesOf(writer), writer.enum32("twice", [["A", 0], ["A", 1], ["B", 2], ["C", 4]])]
      let taken = 0
      const next = () => choices[taken++ % choices.length]
      const { id, size: bytes } = typeFrom(writer, leaves.slice(0, 12), next, 3)
      FastCheck.pre(bytes > 0 && bytes < 300)
      // holes before and behind it, and bit-fields that leave bits out and lie over one another
      const at = next() % 5
      const bits = 8 * (at + bytes + next() % 3)
      const fields = Array.from({ length: next() % 4 }, (_, index) => ({
        name: `bits${index}`,
        type: leaves[[0, 2, 5, 6, 12][next() % 5]],
        bits: bits + next() % 40,
        width: 1 + next() % 16
      }))
      const size = bits / 8 + 8
      const struct = writer.struct("whole", size, [{ name: "inner", type: id, bits: at * 8 }, ...fields])
      const codec = compile(parse(writer.bytes()), struct)
      const byte = () =>
        gen(() => FastCheck.oneof(FastCheck.constantFrom(0, 0, 0, 1, 2, 0x41, 0x80, 0xff), FastCheck.nat(255)))
      const one = Uint8Array.from({ length: size }, byte)
      // NaN, -0 and their like
      if (next() % 3 === 0) one.set([0xff, 0xc0, 0x7f, 0, 0x80, 0, 0xf8, 0x7f].slice(0, size), next() % (size - 7))
      const other = one.slice()
      for (let times = 1 + next() % 3; times > 0; times--) other[next() % size] = byte()
      const identity = (value: Uint8Array): ReadonlyArray<string> => {
        const view = new DataView(value.buffer)
        const sink = new ByteSink(64)
        const hides = codec.json(view, 0, sink)
        assert.strictEqual(hides, codec.hides?.(view, 0) ?? false)
        const hidden = hides ? Buffer.from(value).toString("hex") : ""
        const json = Buffer.from(sink.take()).toString()
        return [`${json} ${hidden}`, `${valueText(codec.tree(view, 0), { width: 60 })} ${hidden}`]
      }
      const same = Buffer.compare(one, other) === 0
      const [json, text] = identity(one)
      const [otherJson, otherText] = identity(other)
      assert.deepStrictEqual([json === otherJson, text === otherText], [same, same])
    },
    { fastCheck: { numRuns: 2000 } }
  )
})
