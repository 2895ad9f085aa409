import type { CommandNode } from "./CommandTree.ts"

/** The request that a command line makes, before @effect/cli parses it. */
export type Asked =
  | { readonly kind: "run" }
  | { readonly kind: "help"; readonly path: ReadonlyArray<string>; readonly node: CommandNode }
  | { readonly kind: "wrong"; readonly problem: string }

/** Part `--name=value` at its first `=`, up to `--`: @effect/cli parts it at each. */
export const parted = (words: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = words.indexOf("--")
  const options = end < 0 ? words : words.slice(0, end)
  return [
    ...options.flatMap((word) => /^(--[^=]+)=(.*)$/s.exec(word)?.slice(1) ?? word),
    ...words.slice(options.length)
  ]
}

/** The message of words that do not fit together. */
export const usageMessage = (problem: string): string => `${problem} (ktstr --help shows the usage)`

/** Options that every command takes, and whether a value follows them. */
const BUILT_IN = new Map([
  ["--help", false],
  ["-h", false],
  ["--version", false],
  ["--completions", true],
  ["--log-level", true]
])

/**
 * Find the command that `words` name, and what is wrong with the names of commands and options. An option's value is
 * passed over; what follows `--` is left alone.
 */
export const asked = (root: CommandNode, words: ReadonlyArray<string>): Asked => {
  let node = root
  const path = [root.name]
  let help = false
  for (let i = 0; i < words.length && words[i] !== "--"; i++) {
    const word = words[i]
    if (word.startsWith("-") && word !== "-") {
      const option = node.options.find(({ name }) => `--${name}` === word)
      const takesValue = option === undefined ? BUILT_IN.get(word) : option.value !== null
      if (takesValue === undefined) return { kind: "wrong", problem: unknownOption(path, node, word) }
      if (word === "--help" || word === "-h") help = true
      if (takesValue) {
        const problem = wrongValue(word, option?.choices ?? [], words[++i])
        if (problem !== undefined) return { kind: "wrong", problem }
      }
    } else if (node.subcommands.length > 0) {
      const next = node.subcommands.find(({ name }) => name === word)
      if (next === undefined) return { kind: "wrong", problem: unknownCommand(path, node, word) }
      node = next
      path.push(node.name)
    }
  }
  if (help) return { kind: "help", path, node }
  const given = words.some((word) => word === "--version" || word === "--completions")
  return node.subcommands.length > 0 && !given ? { kind: "help", path, node } : { kind: "run" }
}

/** The problem of an option's value, if there is one; `choices` are empty where any value is taken. */
const wrongValue = (
  option: string,
  choices: ReadonlyArray<string>,
  value: string | undefined
): string | undefined =>
  value === undefined
    ? `${option} needs a value`
    : choices.length > 0 && !choices.includes(value)
    ? `${option} needs one of ${choices.join(", ")}`
    : undefined

const unknownCommand = (path: ReadonlyArray<string>, node: CommandNode, word: string): string => {
  const names = node.subcommands.map(({ name }) => name)
  const near = nearest(word, names)
  return `no command "${[...path.slice(1), word].join(" ")}"`
    + (near === undefined
      ? `: the commands are ${names.join(", ")}`
      : `: did you mean "${[...path.slice(1), near].join(" ")}"?`)
}

const unknownOption = (path: ReadonlyArray<string>, node: CommandNode, word: string): string => {
  const near = nearest(word, [...node.options.map(({ name }) => `--${name}`), ...BUILT_IN.keys()])
  return `${path.slice(1).join(" ") || path[0]} has no option ${word}${
    near === undefined ? "" : `: did you mean ${near}?`
  }`
}

/** The name that a typing error away from `word`: at most a third of its letters changed, added, left out or swapped. */
export const nearest = (word: string, names: ReadonlyArray<string>): string | undefined => {
  const limit = Math.max(1, Math.floor(word.replace(/^-+/, "").length / 3))
  const [best] = names
    .map((name) => ({ name, distance: distance(word.toLowerCase(), name) }))
    .filter((near) => near.distance <= limit)
    .toSorted((a, b) => a.distance - b.distance)
  return best?.name
}

/** Letters of a word that count: a longer one is not a mistyped option. */
const WORD_LIMIT = 64

/** Damerau-Levenshtein distance, of adjacent swaps. */
const distance = (a: string, b: string): number => {
  if (a.length > WORD_LIMIT) return Infinity
  let before: ReadonlyArray<number> = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      row[j] = Math.min(
        last[j] + 1,
        row[j - 1] + 1,
        last[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1),
        swapped ? before[j - 2] + 1 : Infinity
      )
    }
    before = last
    last = row
  }
  return last[b.length]
}
