import { assert, describe, it } from "@effect/vitest"
import { cString } from "../../src/core/CString.ts"

describe("cString", () => {
  it("ends at the NUL, or with the field", () => {
    const view = new DataView(Uint8Array.from(Buffer.from("abc\0def\xff", "latin1")).buffer)
    assert.strictEqual(cString(view, 0, 8), "abc")
    assert.strictEqual(cString(view, 1, 1), "b")
    assert.strictEqual(cString(view, 4, 4), "def\ufffd")
    assert.strictEqual(cString(view, 3, 5), "")
  })
  it("takes the bytes of a part of a buffer, to its end", () => {
    const bytes = Uint8Array.from(Buffer.from("xabc\0def", "latin1")).subarray(1)
    assert.strictEqual(cString(bytes), "abc")
    assert.strictEqual(cString(bytes, 4), "def")
    assert.strictEqual(cString(new Uint8Array(0)), "")
  })
})
