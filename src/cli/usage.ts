import { type CommandWords, commonWords, type OptionWord, words } from "./words.ts"

/** What the words of a command line ask for. */
export type Understood =
  | { readonly kind: "help"; readonly path: ReadonlyArray<CommandWords> }
  | { readonly kind: "version" }
  /** `problem` is one sentence without its full stop. */
  | { readonly kind: "wrong"; readonly path: ReadonlyArray<CommandWords>; readonly problem: string }
  /** `argv`: the same words, with `--name=value` parted in two, which @effect/cli gets wrong for some values. */
  | { readonly kind: "run"; readonly argv: ReadonlyArray<string> }

/**
 * Check the words after `ktstr` one by one, so that the first one which is wrong can be named: @effect/cli says of
 * `--image a --image b` that it does not know `--image`, and of `--cpus x` that "'x' is not a integer".
 */
export const understand = (given: ReadonlyArray<string>): Understood => {
  const path: Array<CommandWords> = [words]
  const argv: Array<string> = []
  const seen = new Set<string>()
  let argument: string | undefined
  let onlyArguments = false
  const wrong = (problem: string): Understood => ({ kind: "wrong", path: [...path], problem })

  for (let at = 0; at < given.length; at++) {
    const word = given[at]
    const command = path[path.length - 1]
    if (word === "--" && !onlyArguments) {
      onlyArguments = true
    } else if (onlyArguments || !word.startsWith("-") || word === "-") {
      const next = onlyArguments ? undefined : command.commands.find(({ name }) => name === word)
      if (next !== undefined) {
        path.push(next)
        argv.push(word)
      } else if (command.commands.length > 0) {
        return wrong(`there is no command ${quoted(word)}${suggestion(word, command.commands.map(({ name }) => name))}`)
      } else if (command.argument === undefined || argument !== undefined) {
        return wrong(`${quoted(word)} is one word too many`)
      } else {
        argument = word
      }
    } else {
      if (word === "-h" || word === "--help") return { kind: "help", path }
      if (word === "--version") return { kind: "version" }
      const equals = word.indexOf("=")
      const name = equals < 0 ? word.slice(2) : word.slice(2, equals)
      const options = [...Object.values(command.options), ...commonWords]
      const option = word.startsWith("--") ? options.find((each) => each.name === name) : undefined
      if (option === undefined) {
        const written = equals < 0 ? word : word.slice(0, equals)
        return wrong(
          `there is no option ${quoted(written)}${suggestion(written, options.map((each) => `--${each.name}`))}`
        )
      }
      if (seen.has(name) && option.repeatable !== true) return wrong(`--${name} is given twice`)
      seen.add(name)
      argv.push(`--${name}`)
      if (option.value === undefined) {
        if (equals >= 0) return wrong(`--${name} takes no value`)
      } else {
        const value = equals >= 0 ? word.slice(equals + 1) : given[++at]
        const problem = valueProblem(option, value)
        if (problem !== undefined) return wrong(problem)
        argv.push(value)
      }
    }
  }
  const command = path[path.length - 1]
  if (!seen.has("completions") && !seen.has("wizard")) {
    if (command.commands.length > 0) {
      return wrong(
        `say what to do: ${
          command.commands.map(({ name }) => [...path, { name }].map((each) => each.name).join(" ")).join(", ")
        }`
      )
    }
    if (command.argument !== undefined && argument === undefined) {
      return wrong(`say which map: ${path.map(({ name }) => name).join(" ")} MAP`)
    }
  }
  // behind `--` an argument may look like an option
  return { kind: "run", argv: argument === undefined ? argv : [...argv, "--", argument] }
}

const valueProblem = (option: OptionWord, value: string | undefined): string | undefined => {
  const { least, name, value: expected } = option
  if (value === undefined) {
    return `--${name} wants a value: ${typeof expected === "string" ? `--${name} ${expected}` : list(expected ?? [])}`
  }
  if (value === "") return `--${name} wants a value, not an empty one`
  if (least !== undefined && !(/^\d{1,15}$/.test(value) && Number(value) >= least)) {
    return `--${name} ${quoted(value)}: a whole number is wanted, ${least} or more`
  }
  if (typeof expected !== "string" && expected?.includes(value) === false) {
    return `--${name} ${quoted(value)}: it is one of ${list(expected)}`
  }
  return undefined
}

const list = (values: ReadonlyArray<string>): string => values.join(", ")
const quoted = (word: string): string => `"${word}"`

/** `; did you mean …?` for the nearest that is at most two edits away (one, for short words); else nothing. */
export const suggestion = (word: string, known: ReadonlyArray<string>): string => {
  const limit = word.replace(/^--/, "").length < 4 ? 1 : 2
  const near = known
    .map((each) => ({ each, edits: editsBetween(word.slice(0, 40).toLowerCase(), each) }))
    .filter(({ edits }) => edits <= limit)
    .sort((a, b) => a.edits - b.edits)
    .at(0)
  return near === undefined ? "" : `; did you mean ${near.each}?`
}

/** Levenshtein's distance. */
const editsBetween = (from: string, to: string): number => {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const next = [i]
    for (let j = 1; j <= to.length; j++) {
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (from[i - 1] === to[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[to.length]
}
