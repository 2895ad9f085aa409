import { assert, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { readFileSync } from "node:fs"
import { setImmediate } from "node:timers/promises"
import { Btf } from "../../src/btf/Btf.ts"
import { Kind } from "../../src/btf/BtfType.ts"
import { diffAll } from "../../src/btf/c/BtfDiff.ts"
import { typeText } from "../../src/btf/c/TypeText.ts"
import { findTypes } from "../../src/btf/FindTypes.ts"
import { layout } from "../../src/btf/Layout.ts"
import { relocateBase } from "../../src/btf/RelocateBase.ts"
import { ByteSink } from "../../src/btf/render/ByteSink.ts"
import { compile } from "../../src/btf/render/Codec.ts"
import { toJson } from "../../src/btf/render/RenderedValue.ts"
import { valueText } from "../../src/btf/render/ValueText.ts"
import { FormatError } from "../../src/core/FormatError.ts"
import { FIRST_SEED } from "../support/mutations.ts"
import { BlobWriter } from "./BlobWriter.ts"

/** How many mutations are tried. */
const COUNT = Number(process.env["KTSTR_MUTATIONS"] ?? 2000)

/** Seeds that once failed: `KTSTR_MUTATIONS=100000` finds more. */
const CORPUS: ReadonlyArray<number> = JSON.parse(
  readFileSync(new URL("mutations.json", import.meta.url), "utf8")
)

/** A blob with types of every kind that refer to one another, always the same. */
const golden = (() => {
  const writer = new BlobWriter()
  const int = writer.int("int", 4, { signed: true })
  const char = writer.int("char", 1)
  const u64 = writer.int("unsigned long", 8)
  const bool = writer.int("_Bool", 1, { bool: true })
  const text = writer.array(char, 16)
  const level = writer.enum32("level", [["LOW", 0xffff_ffff], ["MID", 0], ["HIGH", 1]], false, 1)
  const flags = writer.enum32("flags", [["A", 1], ["B", 2], ["C", 4], ["AB", 3]])
  const big = writer.enum64("big", [["BIG", 1n << 40n], ["BIT", 1n << 63n]])
  const fwd = writer.ref(Kind.FWD, 0, "later")
  const inner = writer.struct("", 8, [
    { name: "a", type: int, bits: 0, width: 5 },
    { name: "b", type: flags, bits: 5, width: 3 },
    { name: "c", type: level, bits: 8, width: 0 }
  ])
  const union = writer.struct(
    "",
    16,
    [{ name: "whole", type: u64, bits: 0 }, { name: "", type: inner, bits: 0 }],
    Kind.UNION
  )
  const node = writer.struct("node", 56, [
    { name: "next", type: 13, bits: 0 },
    { name: "", type: union, bits: 64 },
    { name: "text", type: text, bits: 192 },
    { name: "ok", type: bool, bits: 320 },
    { name: "big", type: big, bits: 384 }
  ])
  writer.ref(Kind.PTR, node) // 13
  const alias = writer.ref(Kind.TYPEDEF, node, "node_t")
  const constant = writer.ref(Kind.CONST, alias)
  const volatile = writer.ref(Kind.VOLATILE, constant)
  const tag = writer.ref(Kind.TYPE_TAG, volatile, "user")
  writer.ref(Kind.TYPE_TAG, tag, "address_space(1)", true)
  writer.ref(Kind.RESTRICT, 13)
  const nodes = writer.array(writer.array(alias, 2), 3)
  const proto = writer.type(Kind.FUNC_PROTO, { third: int, vlen: 2, body: [writer.string("n"), nodes, 0, 0] })
  writer.type(Kind.FUNC, { name: "probe", third: proto, vlen: 1 })
  const variable = writer.type(Kind.VAR, { name: "nodes", third: nodes, body: [1] })
  writer.type(Kind.DATASEC, { name: ".data", third: 512, vlen: 1, body: [variable, 0, 336] })
  writer.type(Kind.FLOAT, { name: "double", third: 8 })
  writer.type(Kind.DECL_TAG, { name: "contains:node:next", third: node, body: [0xffff_ffff] })
  writer.struct("outer", 400, [
    { name: "n", type: nodes, bits: 0 },
    { name: "f", type: fwd, bits: 2688 },
    { name: "$marks", type: int, bits: 2720 }
  ])
  return writer.bytes(32, Array.from({ length: 40 }, () => [4, 8] as const))
})()

const parsed = Either.getOrThrow(Btf.parse(golden, { subject: "golden" }))

/** mulberry32: numbers from 0 to below `n`, the same for a seed wherever it runs. */
const randomOf = (seed: number) => {
  let state = (seed * 0x9e37_79b1) >>> 0
  return (n: number): number => {
    state = (state + 0x6d2b_79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t
    return Math.floor(((t ^ (t >>> 14)) >>> 0) / 2 ** 32 * n)
  }
}

const LIKELY = [0, 1, 7, 31, 32, 0x7f, 0xff, 0x1000, 0xffff, 0xff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]

/** A blob with 1 to 4 changes that know its structure: words of records, records moved, strings cut, sections shifted. */
const mutate = (seed: number): Uint8Array => {
  const random = randomOf(seed)
  const pick = <A>(from: ReadonlyArray<A>): A => from[random(from.length)]
  const bytes = golden.slice()
  const view = new DataView(bytes.buffer)
  const ids = parsed.endId - 1
  for (let changes = 1 + random(4); changes > 0; changes--) {
    const id = 1 + random(ids)
    const at = parsed.recordAt(id)
    const end = id < ids ? parsed.recordAt(id + 1) : at + 12
    const words = (end - at) / 4
    switch (random(10)) {
      case 0: // another kind, unknown ones too
        view.setUint8(at + 7, (bytes[at + 7] & 0x80) | random(random(4) === 0 ? 128 : 20))
        break
      case 1: // the kind flag
        bytes[at + 7] ^= 0x80
        break
      case 2: // more or fewer elements
        view.setUint32(
          at + 4,
          (view.getUint32(at + 4, true) & 0xff00_0000) | (random(3) === 0 ? pick(LIKELY) & 0xff_ffff : random(12)),
          true
        )
        break
      case 3: // a size, or what it refers to: circles
        view.setUint32(at + 8, random(2) === 0 ? random(ids + 2) : pick(LIKELY), true)
        break
      case 4: // a word of an element
        view.setUint32(
          at + 4 * (words > 3 ? 3 + random(words - 3) : 2),
          random(2) === 0 ? random(ids + 2) : pick(LIKELY),
          true
        )
        break
      case 5: // a name: another, in the middle of one, outside
        view.setUint32(at, random(3) === 0 ? pick(LIKELY) : random(160), true)
        break
      case 6: { // a record over another
        const from = parsed.recordAt(1 + random(ids))
        bytes.copyWithin(at, from, from + Math.min(end - at, 40))
        break
      }
      case 7: // a string's end, or a byte of one
        bytes[bytes.length - 1 - random(120)] = pick([0, 0x1b, 0x24, 0x41, 0x80, 0xff])
        break
      case 8: // the header, the layout section's words among them
        if (random(4) === 0) view.setUint32(4 * random(8), random(2) === 0 ? random(200) : pick(LIKELY), true)
        else bytes[32 + view.getUint32(24, true) % 1000 + random(160)] = random(256)
        break
      default: // any word
        view.setUint32(random(bytes.length - 3), pick(LIKELY), true)
    }
  }
  return bytes
}

const view = new DataView(Uint8Array.from({ length: 600 }, (_, index) => index * 37 & 0xff).buffer)

/** Everything that reads a blob, on each of its types. */
const readAll = (btf: Btf): void => {
  const sink = new ByteSink(64)
  for (let id = 0; id <= btf.endId; id++) {
    const codec = compile(btf, id)
    codec.json(view, 0, sink)
    const json = Buffer.from(sink.take()).toString()
    assert.isBelow(json.length, 2 ** 27)
    // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
    assert.notMatch(json, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    const tree = codec.tree(view, 0, { elements: 64 })
    if (json.length < 20_000) {
      assert.strictEqual(JSON.stringify(JSON.parse(json)), JSON.stringify(toJson(codec.tree(view, 0))))
      // oxlint-disable-next-line no-control-regex -- newlines are ours
      assert.notMatch(valueText(tree).replaceAll("\n", ""), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    }
    assert.isBelow(typeText(btf, id).length, 2 ** 24)
  }
  for (const name of ["node", "outer", "node_t", ""]) {
    const found = layout(btf, name, ["next"], ["text", "a", "big", ""])
    if (Either.isRight(found)) assert.isAtMost(found.right.at.next, found.right.size)
  }
  findTypes(btf, "struct nod")
  diffAll(btf, parsed)
  diffAll(parsed, btf)
  Either.match(relocateBase(golden, btf, parsed, "split"), {
    onLeft: (error) => assert.instanceOf(error, FormatError),
    onRight: () => {}
  })
}

const tryOut = (seed: number): void => {
  const btf = Btf.parse(mutate(seed), { subject: "mutated" })
  try {
    if (Either.isLeft(btf)) assert.instanceOf(btf.left, FormatError)
    else readAll(btf.right)
  } catch (error) {
    throw new Error(`seed ${seed} fails: put it into mutations.json`, { cause: error })
  }
}

it("the blob itself is read whole", () => readAll(parsed))

it("mutations that once failed do not", () => {
  for (const seed of CORPUS) tryOut(seed)
})

it(`${COUNT} mutations are refused or read, whatever they say`, async () => {
  let read = 0
  for (let seed = FIRST_SEED; seed < FIRST_SEED + COUNT; seed++) {
    if (seed % 16 === 0) await setImmediate() // the test runner's own messages wait for a turn, at most a minute
    tryOut(seed)
    if (Either.isRight(Btf.parse(mutate(seed), { subject: "mutated" }))) read++
  }
  assert.isAbove(read, COUNT / 3, "enough of them get past the index")
}, 600_000 + COUNT * 100)
