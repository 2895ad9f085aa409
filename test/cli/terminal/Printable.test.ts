import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { COLORED } from "../../../src/cli/terminal/Color.ts"
import { escapeControls, escapeLine } from "../../../src/cli/terminal/escapeControls.ts"
import { printable } from "../../../src/cli/terminal/Printable.ts"
import { table } from "../../../src/cli/terminal/Table.ts"

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** All code points of the categories that a terminal or a JSON reader may take for something else than text. */
const unprintable = Array.from({ length: 0x110000 }, (_, code) => String.fromCodePoint(code))
  .filter((character) => /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u.test(character))

describe("text for a terminal or a file", () => {
  it("has no control, format or separator character but tab and newline", () => {
    assert.isAbove(unprintable.length, 2000)
    for (const character of unprintable) {
      const text = decode(printable(`a${character}b`))
      if (character === "\n" || character === "\t") assert.strictEqual(text, `a${character}b`)
      else assert.match(text, /^a(\\u[0-9a-f]{4}){1,2}b$/)
      if (character !== "\n") {
        assert.match(escapeControls(`a${character}b`), /^a(\\x[0-9a-f]{2}|(\\u[0-9a-f]{4}){1,2})b$/)
      }
      assert.notMatch(escapeLine(character), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u)
    }
  })

  it("is the same JSON, keys too", () => {
    const value = Object.fromEntries(unprintable.map((character) => [`k${character}`, `v${character}é→😀`]))
    const text = decode(printable(JSON.stringify(value)))
    assert.notMatch(text, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u)
    assert.deepStrictEqual(JSON.parse(text), value)
  })

  it("takes styles for ours where text is styled only", () => {
    const text = decode(printable("\x1b[1mbold\x1b[22m \x1b[2J"))
    assert.strictEqual(
      text,
      COLORED ? "\x1b[1mbold\x1b[22m \\u001b[2J" : "\\u001b[1mbold\\u001b[22m \\u001b[2J"
    )
  })

  it("is on one line where it must be", () => {
    assert.strictEqual(escapeLine("  a \t\n\n \n b  c\n"), "a b  c")
    assert.strictEqual(escapeLine("\n"), "")
    assert.strictEqual(table(["A", "B"], [["x\ny", ""], ["1", "2 "]]), "A    B\nx y\n1    2\n")
  })

  it("is aligned by the columns of a terminal that it takes", () => {
    const cells = ["\x1b[31mred\x1b[39m", "日本", "e\u0301", "ab"]
    assert.strictEqual(
      table(["A", "B"], cells.map((cell) => [cell, "x"])),
      "A     B\n\x1b[31mred\x1b[39m   x\n日本  x\ne\u0301     x\nab    x\n"
    )
    assert.strictEqual(table(["A", "B"], [["1", "x"], ["100", ""]], [0]), "  A  B\n  1  x\n100\n")
  })

  it("takes the time of its length, however many blanks are in it", () => {
    // a quarter of a million: minutes where the time is that of their square
    const blanks = `a${" ".repeat(2 ** 18)}b`
    assert.strictEqual(escapeLine(blanks), blanks)
    assert.strictEqual(escapeLine(`${blanks}\n${blanks}`), `${blanks} ${blanks}`)
    assert.strictEqual(table(["A"], [[blanks]]), `A\n${blanks}\n`)
    const rows = Array.from({ length: 2 ** 16 }, (_, pid) => [String(pid), "task"])
    assert.strictEqual(table(["PID", "NAME"], rows, [0]).length, (2 ** 16 + 1) * 12)
  })

  it("is written by one module, and by the thread of the time limit", () => {
    const root = new URL("../../../src/", import.meta.url).pathname
    const writers = readdirSync(root, { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts"))
      .filter((path) =>
        /process\.(stdout|stderr)\.write|\bwriteSync\([12],|as Printable\b/.test(readFileSync(join(root, path), "utf8"))
      )
    // The time limit's thread cannot import the one that writes; its line is a `Printable` too.
    assert.deepStrictEqual(writers.toSorted(), [
      "cli/terminal/Printable.ts",
      "cli/terminal/Streams.ts",
      "cli/terminal/timeLimit.ts"
    ])
  })
})
