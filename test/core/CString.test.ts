import { assert, describe, it } from "@effect/vitest"
import { cString } from "../../src/core/CString.ts"

describe("cString", () => {
  it("ends at the NUL, or with the field", () => {
    const view = new DataView(Uint8Array.from(Buffer.from("abc\0def\xff", "latin1")).buffer)
    assert.strictEqual(cString(view, 0, 8), "abc")
    assert.strictEqual(cString(view, 1, 1), "b")
    assert.strictEqual(cString(view, 4, 4), "def\\xff")
    assert.strictEqual(cString(view, 3, 5), "")
  })
  it("keeps what is UTF-8, and tells apart bytes that are not", () => {
    const of = (...parts: ReadonlyArray<string | number>) =>
      cString(Buffer.concat(parts.map((part) => Buffer.from(typeof part === "string" ? part : [part]))))
    assert.strictEqual(of("é\ufffd日𝄞"), "é\ufffd日𝄞")
    assert.strictEqual(of("é", 0xff, "日", 0xe6, 0x97, 0, "x"), "é\\xff日\\xe6\\x97")
    assert.strictEqual(of(0xc3, "A", 0x80, 0xf0, 0x9d), "\\xc3A\\x80\\xf0\\x9d")
    assert.strictEqual(of(0xed, 0xa0, 0x80, 0xc0, 0xaf), "\\xed\\xa0\\x80\\xc0\\xaf")
  })
  it("takes the bytes of a part of a buffer, to its end", () => {
    const bytes = Uint8Array.from(Buffer.from("xabc\0def", "latin1")).subarray(1)
    assert.strictEqual(cString(bytes), "abc")
    assert.strictEqual(cString(bytes, 4), "def")
    assert.strictEqual(cString(new Uint8Array(0)), "")
  })
})
