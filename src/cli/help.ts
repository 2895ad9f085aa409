import { bold } from "./Colour.ts"
import { type CommandWords, commonWords, type OptionWord } from "./words.ts"

/** Columns that help texts fit in. */
const WIDTH = 100

/** The help of the last command of `path`. */
export const helpText = (path: ReadonlyArray<CommandWords>): string => {
  const command = path[path.length - 1]
  const name = path.map((each) => each.name).join(" ")
  const isGroup = command.commands.length > 0
  const usage = `${name}${isGroup ? " COMMAND" : " [OPTIONS]"}${
    command.argument === undefined ? "" : ` ${command.argument.name.toUpperCase()}`
  }`
  const rows: Array<readonly [string, string]> = isGroup
    ? leaves(path).map(({ about, name }) => [name, about])
    : Object.values(command.options).map((option) => [optionText(option), aboutText(option)])
  const common = path.length === 1 ? commonWords : commonWords.filter((option) => option.name === "help")
  const sections = [
    `${bold("Usage:")} ${usage}\n\n${wrapped(command.about, 0)}\n`,
    section(isGroup ? "Commands" : "Options", rows),
    section(isGroup ? "Options" : undefined, common.map((option) => [optionText(option), option.about])),
    command.examples.length === 0
      ? ""
      : `\n${bold(command.examples.length === 1 ? "Example" : "Examples")}\n${
        command.examples.map((line) => `  ${line}\n`).join("")
      }`
  ]
  return sections.join("") + (isGroup ? `\n${name} COMMAND --help shows the options of a command.\n` : "")
}

const leaves = (
  path: ReadonlyArray<CommandWords>
): ReadonlyArray<{ readonly name: string; readonly about: string }> => {
  const command = path[path.length - 1]
  return command.commands.length === 0
    ? [{ name: path.slice(1).map(({ name }) => name).join(" "), about: command.about }]
    : command.commands.flatMap((each) => leaves([...path, each]))
}

const optionText = ({ name, value }: OptionWord): string =>
  `--${name}${
    value === undefined
      ? ""
      : typeof value === "string"
      ? ` ${value}`
      : value.length > 4
      ? " LEVEL"
      : ` ${value.join("|")}`
  }`

const aboutText = ({ about, otherwise, repeatable }: OptionWord): string =>
  about + (repeatable === true ? " (repeatable)" : "") + (otherwise === undefined ? "" : ` (default: ${otherwise})`)

const section = (title: string | undefined, rows: ReadonlyArray<readonly [string, string]>): string => {
  const column = 24
  return (title === undefined ? "" : `\n${bold(title)}\n`)
    + rows.map(([left, right]) =>
      left.length + 4 > column
        ? `  ${left}\n${" ".repeat(column)}${wrapped(right, column)}\n`
        : `  ${left.padEnd(column - 2)}${wrapped(right, column)}\n`
    ).join("")
}

/** Words in lines that end before `WIDTH`; all but the first line start at `column`. */
const wrapped = (text: string, column: number): string => {
  const lines = [""]
  for (const word of text.split(" ")) {
    const last = lines[lines.length - 1]
    if (last !== "" && column + last.length + 1 + word.length > WIDTH) lines.push(word)
    else lines[lines.length - 1] = last === "" ? word : `${last} ${word}`
  }
  return lines.join(`\n${" ".repeat(column)}`)
}
