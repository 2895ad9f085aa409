import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { shellQuote } from "../../../src/core/process/ShellQuote.ts"

describe("shellQuote", () => {
  it("is one word for a shell, whatever is in it", () => {
    for (const text of ["", "a", "a b", "it's", "$HOME", "`id`", "a\nb", "\\", "-n", "*", "~", "é", "a;b", "\"", "#"]) {
      assert.strictEqual(execFileSync("sh", ["-c", `printf %s ${shellQuote(text)}`], { encoding: "utf8" }), text)
    }
  })

  it("leaves plain words as they are", () => {
    for (const text of ["v6.12", "https://example.org/linux.git", "/lib/x86_64-linux-gnu:/lib64"]) {
      assert.strictEqual(shellQuote(text), text)
    }
  })
})
