import { assert, describe, it } from "@effect/vitest"
import type { RenderedValue } from "../../../src/btf/render/RenderedValue.ts"
import { valueText } from "../../../src/btf/render/ValueText.ts"

const int = (value: number | bigint): RenderedValue => ({ _tag: "int", value })
const array = (...elements: ReadonlyArray<RenderedValue>): RenderedValue => ({ _tag: "array", elements, omitted: 0 })
const struct = (members: { readonly [name: string]: RenderedValue }): RenderedValue => ({
  _tag: "struct",
  members: Object.entries(members).map(([name, value]) => ({ name, value }))
})

describe("text", () => {
  it("writes single values as C does", () => {
    const cases: ReadonlyArray<readonly [RenderedValue, string]> = [
      [int(-7), "-7"],
      [int(2n ** 64n - 1n), "18446744073709551615"],
      [{ _tag: "bool", value: true }, "true"],
      [{ _tag: "char", value: 65 }, "65 'A'"],
      [{ _tag: "char", value: 7 }, "7"],
      [{ _tag: "enum", value: 7, name: "K_B", flags: [] }, "K_B"],
      [{ _tag: "enum", value: 5, name: null, flags: ["ONE", "FOUR"] }, "ONE | FOUR"],
      [{ _tag: "enum", value: 99, name: null, flags: [] }, "99"],
      [{ _tag: "float", value: -0.5 }, "-0.5"],
      [{ _tag: "pointer", value: 0xffff_8880_0000_0a0fn }, "0xffff888000000a0f"],
      [{ _tag: "pointer", value: 0n }, "NULL"],
      [{ _tag: "string", value: "a\"b\\c" }, "\"a\\\"b\\\\c\""],
      [{ _tag: "bytes", hex: "00ff0a" }, "{ 00 ff 0a }"],
      [{ _tag: "truncated", needed: 8, had: 4 }, "<truncated: 4 of 8 bytes>"],
      [{ _tag: "unsupported", reason: "void has no value" }, "<void has no value>"],
      [
        { _tag: "missing", reason: { kind: "unreadable", text: "0x10\u202e is not mapped" } },
        "<unreadable: 0x10\\u202e is not mapped>"
      ],
      [{ _tag: "string", value: "\x1b[1m\u2028\u202e\x9b" }, "\"\\u001b[1m\\u2028\\u202e\\u009b\""],
      [struct({}), "{}"],
      [array(), "{}"]
    ]
    for (const [value, text] of cases) assert.strictEqual(valueText(value), text)
  })

  it("puts on one line what fits, and breaks only what does not", () => {
    const value = struct({
      pid: int(7),
      in: struct({ a: int(1), name: { _tag: "string", value: "init" } }),
      matrix: array(array(int(1), int(2)), array(int(3), int(4)))
    })
    const line = "{ .pid = 7, .in = { .a = 1, .name = \"init\" }, .matrix = { { 1, 2 }, { 3, 4 } } }"
    assert.strictEqual(valueText(value, { width: line.length }), line)
    const lines = [
      "{",
      "  .pid = 7,",
      "  .in = { .a = 1, .name = \"init\" },",
      "  .matrix = { { 1, 2 }, { 3, 4 } }",
      "}"
    ]
    assert.strictEqual(valueText(value, { width: line.length - 1 }), lines.join("\n"))
    const narrow = [
      "{",
      "  .pid = 7,",
      "  .in = {",
      "    .a = 1,",
      "    .name = \"init\"",
      "  },",
      "  .matrix = {",
      "    { 1, 2 },",
      "    { 3, 4 }",
      "  }",
      "}"
    ]
    assert.strictEqual(valueText(value, { width: 20 }), narrow.join("\n"))
    assert.strictEqual(valueText(struct({ a: int(1) }), { width: 10, column: 5, indent: 4 }), "{\n      .a = 1\n    }")
  })

  it("fills lines with elements, and says how many are left out", () => {
    const elements = Array.from({ length: 12 }, (_, n) => int(n * 1000))
    const text = valueText({ _tag: "array", elements, omitted: 88 }, { width: 30 })
    assert.strictEqual(
      text,
      "{\n  0, 1000, 2000, 3000, 4000,\n  5000, 6000, 7000, 8000,\n  9000, 10000, 11000,\n  <88 more>\n}"
    )
    assert.strictEqual(
      valueText({ _tag: "bytes", hex: "00".repeat(12) }, { width: 20 }),
      "{\n  00 00 00 00 00 00\n  00 00 00 00 00 00\n}"
    )
  })

  it("writes long runs of one value once", () => {
    const zeros = Array.from({ length: 60 }, () => int(0))
    assert.strictEqual(valueText(array(int(1), int(2), ...zeros)), "{ 1, 2, [2 ... 61] = 0 }")
    const pairs = Array.from({ length: 8 }, () => struct({ a: int(0) }))
    assert.strictEqual(valueText(array(...pairs, int(5))), "{ [0 ... 7] = { .a = 0 }, 5 }")
    assert.strictEqual(valueText(array(...zeros.slice(0, 3))), "{ 0, 0, 0 }")
  })

  it("is quick for many elements, also of arrays in arrays", () => {
    const row = array(...Array.from({ length: 300 }, () => int(0)))
    const text = valueText(array(...Array.from({ length: 300 }, () => row)))
    assert.strictEqual(text, "{ [0 ... 299] = { [0 ... 299] = 0 } }")
  })

  it("escapes what is not printable in a guest's names", () => {
    const value: RenderedValue = {
      _tag: "struct",
      members: [{ name: "a\u001b[2J", value: { _tag: "enum", value: 1, name: "E\u0007\u009b", flags: [] } }]
    }
    assert.strictEqual(valueText(value), "{ .a\\u001b[2J = E\\u0007\\u009b }")
  })
})
