import { escapeLine } from "../terminal/escapeControls.ts"
import { printable } from "../terminal/Printable.ts"
import { OutputError, writeMessage, writeWhole } from "../terminal/Streams.ts"
import { asked, parted, usageMessage } from "./CommandLine.ts"
import type { CommandNode } from "./CommandTree.ts"
import { type Group, helpText } from "./Help.ts"

/** The whole command line as help shows it: plain data, which scripts/build.mjs writes into dist/bin/commands.json. */
export interface Commands {
  readonly root: CommandNode
  readonly commandGroups: ReadonlyArray<Group>
  readonly optionGroups: ReadonlyArray<Group>
  /** By the command's path. */
  readonly examples: Readonly<Record<string, ReadonlyArray<string>>>
  readonly footer: string
}

/** Widest help: longer lines are hard to read. */
const HELP_WIDTH = 100

/**
 * Answer help and mistyped names, without Effect and all the rest of the command, which takes longer to load than this to
 * run; false: the command is to be run.
 */
export const answer = (commands: Commands, words: ReadonlyArray<string>): boolean => {
  const given = asked(commands.root, parted(words))
  switch (given.kind) {
    case "run":
      return false
    case "wrong":
      refuse(usageMessage(given.problem), 2)
      return true
    case "help": {
      const path = given.path.slice(1).join(" ")
      const { commandGroups, examples, footer, optionGroups } = commands
      const extras = path === ""
        ? { groups: commandGroups, examples: examples[path], footer }
        : { groups: optionGroups, examples: examples[path] ?? [] }
      const width = Math.min(HELP_WIDTH, process.stdout.columns || 80)
      void print(helpText(given.path, given.node, extras, width))
      return true
    }
  }
}

/** A failure's line and exit code, as `report` and `exitCode` have them. */
const refuse = (message: string, code: number): void => {
  process.stderr.on("error", () => undefined) // who does not read the message has the exit code
  writeMessage(`ktstr: ${escapeLine(message)}\n`)
  process.exitCode = code
}

const print = async (text: string): Promise<void> => {
  try {
    await writeWhole(printable(text))
  } catch (error) {
    if (!(error instanceof OutputError)) throw error
    refuse(error.message, 1)
  }
}
