import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { Btf } from "../../../src/btf/Btf.ts"
import { ByteSink } from "../../../src/btf/render/ByteSink.ts"
import { compile } from "../../../src/btf/render/Codec.ts"
import { toJson } from "../../../src/btf/render/RenderedValue.ts"
import { valueText } from "../../../src/btf/render/ValueText.ts"
import { BlobWriter } from "../BlobWriter.ts"

/** A value of a type, in its three forms. */
const shown = (writer: BlobWriter, typeId: number, bytes: ReadonlyArray<number>) => {
  const btf = Either.getOrThrow(Btf.parse(writer.bytes(), { subject: "made" }))
  const view = new DataView(Uint8Array.from(bytes).buffer)
  const codec = compile(btf, typeId)
  const sink = new ByteSink()
  codec.json(view, 0, sink)
  const tree = codec.tree(view, 0)
  return { json: JSON.parse(Buffer.from(sink.take()).toString()), tree: toJson(tree), text: valueText(tree) }
}

describe("BTF that makes values look like others", () => {
  it("a char of more or fewer bits than a byte is a number, the same in every form", () => {
    const writer = new BlobWriter()
    const char = writer.int("char", 1)
    const members = [[12, 0], [64, 64], [3, 128], [8, 136]].map(([width, bits], index) => ({
      name: `c${index}`,
      type: char,
      bits,
      width
    }))
    const id = writer.struct("s", 18, members)
    const found = shown(writer, id, [0xff, 0x0f, 0, 0, 0, 0, 0, 0, ...Array.from({ length: 8 }, () => 0xff), 5, 0x41])
    const value = { c0: 0xfff, c1: "18446744073709551615", c2: 5, c3: 0x41 }
    assert.deepStrictEqual(found.json, value)
    assert.deepStrictEqual(found.tree, value)
    assert.strictEqual(found.text, "{ .c0 = 4095, .c1 = 18446744073709551615, .c2 = 5, .c3 = 65 'A' }")
  })

  it("a member that is called like one of our marks is called otherwise", () => {
    const writer = new BlobWriter()
    const int = writer.int("int", 4, { signed: true })
    const names = ["$unsupported", "$truncated", "$omitted", "$unreadable", "$$unsupported"]
    const id = writer.struct("s", 20, names.map((name, index) => ({ name, type: int, bits: 32 * index })))
    const { json, tree } = shown(writer, id, Array.from({ length: 20 }, (_, at) => at % 4 === 0 ? 1 + at / 4 : 0))
    const value = { $$unsupported: 1, $$truncated: 2, $$omitted: 3, $$unreadable: 4, $$$unsupported: 5 }
    assert.deepStrictEqual(json, value)
    assert.deepStrictEqual(tree, value)
  })
})
