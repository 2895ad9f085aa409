// Prints the command line's names and help as JSON (`Commands`), which the build keeps for help.
import { commandGroups, examples, footer, ktstr } from "../commands.ts"
import { optionGroups } from "../source/options.ts"
import type { Commands } from "./answer.ts"
import { commandTree } from "./CommandTree.ts"

const commands: Commands = { root: commandTree(ktstr.descriptor), commandGroups, optionGroups, examples, footer }
process.stdout.write(JSON.stringify(commands))
