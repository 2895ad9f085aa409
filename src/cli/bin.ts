import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as NodeCommandExecutor from "@effect/platform-node/NodeCommandExecutor"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import * as NodeTerminal from "@effect/platform-node/NodeTerminal"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { stripVTControlCharacters } from "node:util"
import packageJson from "../../package.json" with { type: "json" }
import { commandGroups, examples, footer, ktstr } from "./commands.ts"
import { asked } from "./help/CommandLine.ts"
import { commandTree } from "./help/CommandTree.ts"
import { helpText } from "./help/Help.ts"
import { optionGroups } from "./source/options.ts"
import { escapeLine } from "./terminal/escapeControls.ts"
import { exitCode, report, UsageError } from "./terminal/exit.ts"
import { writeMessage, writeText } from "./terminal/Output.ts"
import { runMain } from "./terminal/signals.ts"

/** stdout is for answers: what the program logs goes to stderr, a line each. */
const logger = Logger.replace(
  Logger.defaultLogger,
  Logger.make(({ logLevel, message }) => {
    const words = Array.isArray(message) ? message.map(String).join(" ") : String(message)
    writeMessage(`ktstr: ${logLevel.label.toLowerCase()}: ${escapeLine(words)}\n`)
  })
)

/** @effect/cli prints usage errors itself, and styles what it prints: let `report` print errors, and style nothing. */
const unstyled = <A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.consoleWith((console) =>
    Effect.withConsole(command, {
      ...console,
      error: () => Effect.void,
      log: (...words) => {
        return Effect.orDie(writeText(`${stripVTControlCharacters(words.join(" ")).trimEnd()}\n`))
      }
    })
  )

/** Part `--name=value` at its first `=`, up to `--`: @effect/cli parts it at each. */
const parted = (words: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = words.indexOf("--")
  const options = end < 0 ? words : words.slice(0, end)
  return [
    ...options.flatMap((word) => /^(--[^=]+)=(.*)$/s.exec(word)?.slice(1) ?? word),
    ...words.slice(options.length)
  ]
}

// A reader of our messages that went away is not a reason to fail.
process.stderr.on("error", () => undefined)

/** Widest help: longer lines are hard to read. */
const HELP_WIDTH = 100

const run = Command.run(ktstr, { name: "ktstr", version: packageJson.version })

/** Help and mistyped names are answered here, the rest is parsed by @effect/cli. */
const main = Effect.suspend(() => {
  const words = parted(process.argv.slice(2))
  const answer = asked(commandTree(ktstr.descriptor), words)
  switch (answer.kind) {
    case "wrong":
      return new UsageError({ problem: answer.problem })
    case "help": {
      const path = answer.path.slice(1).join(" ")
      const extras = path === ""
        ? { groups: commandGroups, examples: examples[path], footer }
        : { groups: optionGroups, examples: examples[path] ?? [] }
      const width = Math.min(HELP_WIDTH, process.stdout.columns || 80)
      return writeText(helpText(answer.path, answer.node, extras, width))
    }
    case "run":
      return unstyled(run([...process.argv.slice(0, 2), ...words]))
  }
})

/** NodeContext without its workers, which no command has and which take a tenth of a short run. */
const host = Layer.mergeAll(NodeCommandExecutor.layer, NodePath.layer, NodeTerminal.layer).pipe(
  Layer.provideMerge(NodeFileSystem.layer)
)

runMain(
  main.pipe(
    Effect.tapErrorCause(report),
    Effect.provide(Layer.mergeAll(host, logger, CliConfig.layer({ isCaseSensitive: true })))
  ),
  exitCode
)
