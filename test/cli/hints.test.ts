import * as CliConfig from "@effect/cli/CliConfig"
import * as CommandDescriptor from "@effect/cli/CommandDescriptor"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { ktstr } from "../../src/cli/commands.ts"
import { asked } from "../../src/cli/help/CommandLine.ts"
import { type CommandNode, commandTree } from "../../src/cli/help/CommandTree.ts"

const root = commandTree(ktstr.descriptor)
const SRC = new URL("../../src", import.meta.url).pathname

/** Our code without its comments. */
const sources = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"))
  .map((name) => ({
    name,
    code: readFileSync(join(SRC, name), "utf8").replaceAll(/\/\*[^]*?\*\/|(?<=^|\s)\/\/ .*$/gm, "")
  }))

/** `a 'b c'` as a shell splits it. */
const shellWords = (line: string): ReadonlyArray<string> =>
  [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain)

/** The commands in backquotes that messages tell people to run; what is put into them is `x`. */
const told = sources.flatMap(({ code, name }) =>
  [...code.matchAll(/\\?`ktstr ([^`\\\n]+)\\?`/g)].map(([, line]) => ({
    name,
    line: line.replaceAll(/\$\{.*?\}+/g, "x")
  }))
)

describe("a command that a message tells people to run", () => {
  for (const line of new Set(told.map(({ line }) => line))) {
    it.effect(`is one that ktstr takes: ktstr ${line}`, () =>
      Effect.gen(function*() {
        const words = shellWords(line)
        assert.strictEqual(asked(root, words).kind, "run")
        const parsed = yield* Effect.either(
          CommandDescriptor.parse(ktstr.descriptor, ["ktstr", ...words], CliConfig.make({ isCaseSensitive: true }))
        )
        if (parsed._tag === "Left") return assert.fail(HelpDoc.toAnsiText(parsed.left.error))
        if (parsed.right._tag === "BuiltIn") return assert.fail("it only shows the help")
        assert.deepStrictEqual(parsed.right.leftover, [])
      }).pipe(Effect.provide(NodeContext.layer)))
  }

  it("is there: the messages are found", () => {
    assert.include(told.map(({ line }) => line), "doctor")
    assert.isAtLeast(new Set(told.map(({ line }) => line)).size, 8)
  })
})

it("an option that a message of the command names is one of its options", () => {
  const options = (node: CommandNode): ReadonlyArray<string> => [
    ...node.options.map(({ name }) => `--${name}`),
    ...node.subcommands.flatMap(options)
  ]
  const ofVitest = "--reporter"
  const known = new Set([...options(root), "--help", "--version", "--completions", "--log-level", ofVitest])
  const unknown = sources.filter(({ name }) => name.startsWith("cli/")).flatMap(({ code, name }) =>
    [...code.matchAll(/(?<![\w-])--[a-z][a-z-]+(?![\w-]| ===)/g)].map(([option]) => `${name}: ${option}`)
      .filter((found) => !known.has(found.split(": ")[1]))
  )
  assert.deepStrictEqual(unknown, [])
})
