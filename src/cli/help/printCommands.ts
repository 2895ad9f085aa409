// Prints the command line's names and help as JSON (`Commands`), which the build keeps for help.
import { commandGroups, examples, footer, ktstr } from "../commands.ts"
import { optionGroups } from "../source/options.ts"
import { printable } from "../terminal/Printable.ts"
import { writeWhole } from "../terminal/Streams.ts"
import type { Commands } from "./answer.ts"
import { commandTree } from "./CommandTree.ts"

const commands: Commands = { root: commandTree(ktstr.descriptor), commandGroups, optionGroups, examples, footer }
void writeWhole(printable(JSON.stringify(commands)))
