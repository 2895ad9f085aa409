import { assert, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { Btf } from "../../src/btf/Btf.ts"
import { asSigned, enumRange, isSignedIn } from "../../src/btf/EnumSign.ts"
import { compile } from "../../src/btf/render/Codec.ts"
import { toJson } from "../../src/btf/render/RenderedValue.ts"
import { BlobWriter } from "./BlobWriter.ts"
import { compileC } from "./compileC.ts"

const parse = (bytes: Uint8Array): Btf => Either.getOrThrow(Btf.parse(bytes, { subject: "enums" }))

it("enums of 1 and 2 bytes with negative values have them, as clang lays them out", () => {
  const { btf: bytes, section } = compileC(`
    enum state { FAILED = -1, NEW, DONE } __attribute__((packed));
    enum level { LOWEST = -300, ZERO = 0 } __attribute__((packed));
    enum wide { NEG = -5, POS = 7 };
    enum flag { LOW = 1, HIGH = 0x80 } __attribute__((packed));
    struct v { enum state s; enum level l; enum wide w; enum wide b : 5; enum flag f; };
    struct v value = { FAILED, LOWEST, NEG, NEG, HIGH };
  `)
  const btf = parse(bytes)
  const data = section(".data")
  const codec = compile(btf, btf.idsByName("v")[0])
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const tree = codec.tree(view, 0)
  assert.deepStrictEqual(toJson(tree), { s: "FAILED", l: "LOWEST", w: "NEG", b: "NEG", f: "HIGH" })
  assert(tree._tag === "struct")
  const values = tree.members.map(({ value }) => value._tag === "enum" ? value.value : undefined)
  assert.deepStrictEqual([values[0], values[1], values[3], values[4]], [-1, -300, -5, 128])
})

it("values are signed only where they cannot be unsigned", () => {
  const values = (...numbers: ReadonlyArray<number>) => numbers.map((value) => ({ name: `${value}`, value }))
  const signs = (bits: number, ...numbers: ReadonlyArray<number>) => {
    const range = enumRange(values(...numbers))
    assert(range !== undefined)
    return isSignedIn(range, bits) ? asSigned(values(...numbers)).map(({ value }) => value) : undefined
  }
  assert.deepStrictEqual(signs(8, 0xffff_ffff, 0, 127), [-1, 0, 127])
  assert.deepStrictEqual(signs(8, 0xffff_ff80), [-128])
  assert.isUndefined(signs(8, 0xffff_ff7f), "-129 does not fit in 8 bits")
  assert.isUndefined(signs(8, 0xffff_ffff, 128), "-1 and 128 do not fit in 8 bits together")
  assert.isUndefined(signs(8, 255, 128))
  assert.isUndefined(signs(32, 0xffff_ffff), "all 32-bit values fit")
  assert.deepStrictEqual(signs(5, 0xffff_fffb, 7), [-5, 7])
  assert.isUndefined(enumRange([{ name: "a", value: -1 }]), "these have their sign")
  assert.isUndefined(enumRange([{ name: "a", value: 2n ** 60n }]))
})

it("an enum of one byte that no sign can make fit stays unsigned", () => {
  const writer = new BlobWriter()
  const id = writer.enum32("odd", [["A", 0xffff_ffff], ["B", 200]], false, 1)
  const type = parse(writer.bytes()).type(id)
  assert(type?.kind === "ENUM")
  assert.isFalse(type.signed)
  assert.deepStrictEqual(type.values.map(({ value }) => value), [0xffff_ffff, 200])
})
