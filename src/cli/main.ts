import * as CliConfig from "@effect/cli/CliConfig"
import * as Command from "@effect/cli/Command"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { ktstr } from "./commands.ts"
import { exitCode, report } from "./exit.ts"
import { visibleLine } from "./visible.ts"

/** stdout is for answers: what the program logs goes to stderr, a line each. */
const logger = Logger.replace(
  Logger.defaultLogger,
  Logger.make(({ logLevel, message }) => {
    const words = Array.isArray(message) ? message.map(String).join(" ") : String(message)
    const level = logLevel._tag === "Warning" ? "warning" : logLevel.label.toLowerCase()
    process.stderr.write(`ktstr: ${level}: ${visibleLine(words)}\n`)
  })
)

/** Run a command line that `understand` has found to be right. */
export const run = (argv: ReadonlyArray<string>, version: string): void => {
  // a reader of our messages that went away is no reason to fail
  process.stderr.on("error", () => undefined)
  process.stdout.on("error", () => undefined)
  Command.run(ktstr, { name: "ktstr", version })(["node", "ktstr", ...argv]).pipe(
    Effect.tapErrorCause(report),
    Effect.provide(Layer.mergeAll(NodeContext.layer, logger, CliConfig.layer({ isCaseSensitive: true }))),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      disablePrettyLogger: true,
      teardown: (exit, onExit) => onExit(exitCode(exit))
    })
  )
}
