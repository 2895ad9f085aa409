import type { ArgumentNode, CommandNode, OptionNode } from "./CommandTree.ts"

/** A heading with the names of what stands below it: options of a command, or commands of the root. */
export interface Group {
  readonly title: string
  readonly names: ReadonlyArray<string>
}

/** The parts of a help page that the command's descriptor does not have. */
export interface HelpExtras {
  /** In the order of printing; options and commands that no group names come last, under `Options`, `Commands`. */
  readonly groups: ReadonlyArray<Group>
  readonly examples: ReadonlyArray<string>
  /** A last line, of what every command takes. */
  readonly footer?: string
}

const INDENT = 2
const GAP = 2
/** Longest name that shares its line with its description. */
const NAME_LIMIT = 30

/** Text cut at blanks into lines of at most `width` characters; a longer word has a line of its own. */
export const wrap = (text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === "" ? word : `${line} ${word}`
  }
  return line === "" ? lines : [...lines, line]
}

/** `--cpus N`, `--disk FILE[,ro]…` */
const optionHead = ({ name, repeated, value }: OptionNode): string =>
  `--${name}${value === null ? "" : ` ${value}`}${repeated ? " …" : ""}`

/** `MAP`, `[TYPE…]` */
const argumentHead = ({ name, optional, repeated }: ArgumentNode): string => {
  const word = `${name.toUpperCase()}${repeated ? "…" : ""}`
  return optional ? `[${word}]` : word
}

/** Rows of a name and its description, the descriptions in one column. */
const rows = (pairs: ReadonlyArray<readonly [string, string]>, width: number): ReadonlyArray<string> => {
  const names = pairs.map(([name]) => name.length).filter((length) => length <= NAME_LIMIT)
  const column = INDENT + Math.max(0, ...names) + GAP
  return pairs.flatMap(([name, about]) => {
    const lines = wrap(about, Math.max(20, width - column))
    const head = " ".repeat(INDENT) + name
    const rest = lines.map((line) => " ".repeat(column) + line)
    return lines.length > 0 && head.length + GAP <= column
      ? [head.padEnd(column) + lines[0], ...rest.slice(1)]
      : [head, ...rest]
  })
}

/** The items in groups, those that no group names last. */
const grouped = <A extends { readonly name: string }>(
  items: ReadonlyArray<A>,
  groups: ReadonlyArray<Group>,
  others: string
): ReadonlyArray<{ readonly title: string; readonly items: ReadonlyArray<A> }> => {
  const named = new Set(groups.flatMap(({ names }) => names))
  return [
    ...groups.map(({ names, title }) => ({ title, items: items.filter(({ name }) => names.includes(name)) })),
    { title: others, items: items.filter(({ name }) => !named.has(name)) }
  ].filter(({ items }) => items.length > 0)
}

/** A command's usage in one line, without its options' names. */
const usage = (path: ReadonlyArray<string>, node: CommandNode): string =>
  [
    ...path,
    ...(node.subcommands.length > 0 ? ["COMMAND"] : []),
    ...(node.options.length > 0 ? ["[OPTION…]"] : []),
    ...node.args.map(argumentHead)
  ].join(" ")

/**
 * Help of one command, `width` characters wide: what it does, its usage in one line, subcommands and options by group,
 * examples. A command without options of its own lists its subcommands, each with one line.
 */
export const helpText = (
  path: ReadonlyArray<string>,
  node: CommandNode,
  { examples, footer, groups }: HelpExtras,
  width: number
): string => {
  const lines = [...wrap(node.about, width), `Usage: ${usage(path, node)}`]
  const block = (title: string, pairs: ReadonlyArray<readonly [string, string]>) => {
    if (pairs.length > 0) lines.push("", `${title}:`, ...rows(pairs, width))
  }
  const commands = grouped(node.subcommands, groups, "Commands")
  const longest = Math.max(0, ...node.subcommands.map(({ name }) => name.length))
  const heading = Math.max(0, ...commands.map(({ title }) => title.length))
  for (const { items, title } of commands) {
    // The group's title beside its first command, no blank line before: the root's help fits one screen.
    for (const [index, { about, name }] of items.entries()) {
      const head = `${(index === 0 ? title : "").padEnd(heading)}  ${name.padEnd(longest)}  `
      const [first = "", ...rest] = wrap(about, Math.max(20, width - head.length))
      lines.push(head + first, ...rest.map((line) => " ".repeat(head.length) + line))
    }
  }
  block("Arguments", node.args.map((argument) => [argument.name.toUpperCase(), argument.about] as const))
  for (const { items, title } of grouped(node.options, groups, "Options")) {
    block(title, items.map((option) => [optionHead(option), option.about] as const))
  }
  if (examples.length > 0) {
    const title = examples.length === 1 ? "Example: " : "Examples: "
    lines.push("", ...examples.map((example, index) => (index === 0 ? title : "").padEnd(title.length) + example))
  }
  if (footer !== undefined) lines.push(...wrap(footer, width))
  return `${lines.join("\n")}\n`
}
