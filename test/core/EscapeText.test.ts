import { assert, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { escapedJson, escapeText } from "../../src/core/EscapeText.ts"

it("nothing that a terminal obeys is left in a text", () => {
  assert.strictEqual(escapeText("plain ü 漢 \u{1f600}"), "plain ü 漢 \u{1f600}")
  assert.strictEqual(escapeText("\u001b]0;x\u0007\u009b1m\u007f\n"), "\\u001b]0;x\\u0007\\u009b1m\\u007f\\u000a")
  assert.strictEqual(
    escapeText("\u202e\u2066\u061c\u200b\u00ad\u2028\u2029"),
    "\\u202e\\u2066\\u061c\\u200b\\u00ad\\u2028\\u2029"
  )
  assert.strictEqual(escapeText("\u{e0041}"), "\\udb40\\udc41", "a tag character")
  assert.strictEqual(escapeText("a\ud800b"), "a\\ud800b", "half a pair")
})

it.prop("JSON parses to the same value, and is printable", [
  FastCheck.jsonValue(),
  FastCheck.string({ unit: "binary" })
], (
  [json, key]
) => {
  const value = { [key]: [json, key] }
  const text = escapedJson(value)
  assert.deepStrictEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)))
  assert.strictEqual(escapeText(text), text)
})
