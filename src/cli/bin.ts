import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { stripVTControlCharacters } from "node:util"
import packageJson from "../../package.json" with { type: "json" }
import { ktstr } from "./commands.ts"
import { visibleLine } from "./terminal/escapeControls.ts"
import { exitCode, report } from "./terminal/exit.ts"
import { writeText } from "./terminal/Output.ts"

/** A stage that cannot be broken off, such as a file system that hangs, must not keep a user who wants to leave. */
const PATIENCE_MILLIS = 15_000

/** stdout is for answers: what the program logs goes to stderr, a line each. */
const logger = Logger.replace(
  Logger.defaultLogger,
  Logger.make(({ logLevel, message }) => {
    const words = Array.isArray(message) ? message.map(String).join(" ") : String(message)
    process.stderr.write(`ktstr: ${logLevel.label.toLowerCase()}: ${visibleLine(words)}\n`)
  })
)

/** @effect/cli styles its help always, and prints usage errors itself: style for terminals only, and let `report` print. */
const onlyHelp = <A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.consoleWith((console) =>
    Effect.withConsole(command, {
      ...console,
      error: () => Effect.void,
      log: (...words) => {
        const text = `${words.join(" ").trimEnd()}\n`
        return Effect.orDie(writeText(process.stdout.isTTY ? text : stripVTControlCharacters(text)))
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

// A reader of our messages that went away is no reason to fail.
process.stderr.on("error", () => undefined)
let asked = false
// These listeners stay: `ora`'s, which restores the cursor, kills us when it finds itself the last one.
const interrupted = () => {
  if (asked) process.exit(130) // the user has no patience at all
  asked = true
  setTimeout(() => {
    if (process.stdin.isRaw) process.stdin.setRawMode(false)
    process.kill(process.pid, "SIGKILL")
  }, PATIENCE_MILLIS).unref()
}
process.on("SIGINT", interrupted).on("SIGTERM", interrupted)
process.on("SIGHUP", () => process.kill(process.pid, "SIGTERM"))
Command.run(ktstr, { name: "ktstr", version: packageJson.version })([
  ...process.argv.slice(0, 2),
  ...parted(process.argv.slice(2))
]).pipe(
  onlyHelp,
  Effect.tapErrorCause(report),
  Effect.provide(Layer.mergeAll(NodeContext.layer, logger, CliConfig.layer({ isCaseSensitive: true }))),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    disablePrettyLogger: true,
    teardown: (exit, onExit) => onExit(exitCode(exit))
  })
)
