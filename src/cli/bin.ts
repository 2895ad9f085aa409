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
import { ktstr } from "./commands.ts"
import { parted } from "./help/CommandLine.ts"
import { escapeLine } from "./terminal/escapeControls.ts"
import { exitCode, report } from "./terminal/exit.ts"
import { writeText } from "./terminal/Output.ts"
import { runMain } from "./terminal/signals.ts"
import { writeMessage } from "./terminal/Streams.ts"

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

// A reader of our messages that went away is not a reason to fail.
process.stderr.on("error", () => undefined)

const run = Command.run(ktstr, { name: "ktstr", version: packageJson.version })

/** The command that the words name; help and mistyped names never come here. */
const main = Effect.suspend(() => unstyled(run([...process.argv.slice(0, 2), ...parted(process.argv.slice(2))])))

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
