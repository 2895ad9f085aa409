import { assert, describe, it } from "@effect/vitest"
import { commandGroups, examples, footer, ktstr } from "../../../src/cli/commands.ts"
import { asked, nearest } from "../../../src/cli/help/CommandLine.ts"
import { type CommandNode, commandTree, optionNames } from "../../../src/cli/help/CommandTree.ts"
import { helpText, wrap } from "../../../src/cli/help/Help.ts"
import { filter, machine, optionGroups, output, script, target } from "../../../src/cli/source/options.ts"

const root = commandTree(ktstr.descriptor)

const all = (
  node: CommandNode,
  path: ReadonlyArray<string>
): ReadonlyArray<readonly [ReadonlyArray<string>, CommandNode]> => [
  [path, node],
  ...node.subcommands.flatMap((child) => all(child, [...path, child.name]))
]
const commands = all(root, [])

/** `a 'b c'` as a shell splits it. */
const shellWords = (line: string): ReadonlyArray<string> =>
  [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain)

describe("help", () => {
  it("of ktstr fits a screen of 80 x 24, with the prompt below it", () => {
    const text = helpText(
      ["ktstr"],
      root,
      { groups: commandGroups, examples: examples[""], footer },
      80
    )
    const lines = text.trimEnd().split("\n")
    assert.isAtMost(lines.length, 23)
    for (const line of lines) assert.isAtMost(line.length, 80)
    for (const { name } of root.subcommands) assert.match(text, new RegExp(`^.{9}${name} `, "m"))
  })

  for (const [path, node] of commands) {
    const name = path.join(" ")
    it(`of ktstr ${name} has every option under a heading, no line that is too long, and an example that it takes`, () => {
      assert.notStrictEqual(node.about, "")
      assert.isNotEmpty(examples[name])
      for (const width of [60, 80, 100]) {
        const text = helpText(["ktstr", ...path], node, { groups: optionGroups, examples: [] }, width)
        for (const line of text.split("\n")) assert.isAtMost(line.length, width, line)
        for (const option of node.options) {
          assert.match(text, new RegExp(`^  --${option.name}\\b`, "m"))
          assert.notStrictEqual(option.about, "", option.name)
        }
        assert.notMatch(text, /user-defined|wizard|true or false/)
      }
      for (const example of examples[name]) {
        const [command, ...words] = shellWords(example)
        assert.strictEqual(command, "ktstr")
        assert.deepStrictEqual(asked(root, words), { kind: "run" }, example)
        if (node.subcommands.length === 0) assert.deepStrictEqual(words.slice(0, path.length), [...path])
      }
    })
  }

  it("puts no option of a shared record under two headings, and none without one", () => {
    const names = optionGroups.flatMap((group) => group.names)
    assert.strictEqual(new Set(names).size, names.length)
    for (const name of optionNames({ ...machine, ...script, ...target, ...output, ...filter })) {
      assert.include(names, name)
    }
  })

  it("wraps at blanks, and gives a long word a line of its own", () => {
    assert.deepStrictEqual(wrap("ab cd  abcdefgh x", 5), ["ab cd", "abcdefgh", "x"])
  })
})

describe("a command line's names", () => {
  it("passes over values, and over what follows --", () => {
    for (
      const words of [["dump", "--image", "--json"], ["dump", "--", "--nonsense"], ["maps", "show", "-", "--live"]]
    ) assert.deepStrictEqual(asked(root, words), { kind: "run" })
  })
  it("asks for help anywhere, but not as a value", () => {
    assert.strictEqual(asked(root, ["maps", "show", "x", "--live", "-h"]).kind, "help")
    assert.deepStrictEqual(asked(root, ["dump", "--image", "--help"]), { kind: "run" })
    assert.strictEqual(asked(root, []).kind, "help")
    assert.strictEqual(asked(root, ["vm"]).kind, "help")
  })
  it("is a typing error away from one that exists, or not", () => {
    const names = ["--kernel", "--console", "--cpus", "--json"]
    assert.strictEqual(nearest("--kernle", names), "--kernel")
    assert.strictEqual(nearest("--cosnole", names), "--console")
    assert.strictEqual(nearest("--cpu", names), "--cpus")
    assert.strictEqual(nearest("--memory", names), undefined)
    assert.strictEqual(nearest(`--${"k".repeat(100_000)}`, names), undefined)
  })
})
