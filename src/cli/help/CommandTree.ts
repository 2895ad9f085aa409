import type * as Descriptor from "@effect/cli/CommandDescriptor"
import * as Predicate from "effect/Predicate"

/** One option of a command. */
export interface OptionNode {
  /** Without the dashes. */
  readonly name: string
  /** The placeholder for its value in help; null: it takes none. */
  readonly value: string | null
  /** The only values that it takes; empty: any. */
  readonly choices: ReadonlyArray<string>
  readonly repeated: boolean
  readonly about: string
}

/** One argument of a command. */
export interface ArgumentNode {
  readonly name: string
  readonly optional: boolean
  readonly repeated: boolean
  readonly about: string
}

/** A command with its options, arguments and subcommands, as help and typing errors need it. */
export interface CommandNode {
  readonly name: string
  readonly about: string
  readonly options: ReadonlyArray<OptionNode>
  readonly args: ReadonlyArray<ArgumentNode>
  readonly subcommands: ReadonlyArray<CommandNode>
}

/**
 * A command's tree. @effect/cli keeps it as instructions with a `_tag`, without an accessor: this walks them by their
 * property names, and the tests of every command's help fail where a newer version has others.
 */
export const commandTree = (descriptor: Descriptor.Command<unknown>): CommandNode => nodeOf(descriptor)

const nodeOf = (instruction: unknown): CommandNode => {
  switch (tagOf(instruction)) {
    case "Map":
      return nodeOf(property(instruction, "command"))
    case "Subcommands": {
      const children = property(instruction, "children")
      return {
        ...nodeOf(property(instruction, "parent")),
        subcommands: Array.isArray(children) ? children.map(nodeOf) : []
      }
    }
    default:
      return {
        name: String(property(instruction, "name")),
        about: plain(property(instruction, "description")),
        options: optionsOf(property(instruction, "options"), false),
        args: argumentsOf(property(instruction, "args"), { optional: false, repeated: false }),
        subcommands: []
      }
  }
}

/** The names of a command's options, as `Command.make` takes them. */
export const optionNames = (options: Readonly<Record<string, unknown>>): ReadonlyArray<string> =>
  Object.values(options).flatMap((option) => optionsOf(option, false)).map(({ name }) => name)

const optionsOf = (instruction: unknown, repeated: boolean): ReadonlyArray<OptionNode> => {
  switch (tagOf(instruction)) {
    case "Single":
      return [{
        name: String(property(instruction, "name")),
        value: tagOf(property(instruction, "primitiveType")) === "Bool" ? null : valueOf(instruction),
        choices: choicesOf(instruction),
        repeated,
        about: plain(property(instruction, "description"))
      }]
    case "Both":
    case "OrElse":
      return [
        ...optionsOf(property(instruction, "left"), repeated),
        ...optionsOf(property(instruction, "right"), repeated)
      ]
    case "Variadic":
    case "KeyValueMap":
      return optionsOf(property(instruction, "argumentOption"), true)
    case "Map":
    case "WithDefault":
    case "WithFallback":
      return optionsOf(property(instruction, "options"), repeated)
    default:
      return []
  }
}

const argumentsOf = (
  instruction: unknown,
  how: { readonly optional: boolean; readonly repeated: boolean }
): ReadonlyArray<ArgumentNode> => {
  switch (tagOf(instruction)) {
    case "Single":
      return [{
        name: String(property(instruction, "name")).replace(/^<|>$/g, ""),
        about: plain(property(instruction, "description")),
        ...how
      }]
    case "Both":
      return [...argumentsOf(property(instruction, "left"), how), ...argumentsOf(property(instruction, "right"), how)]
    case "Variadic":
      return argumentsOf(property(instruction, "args"), { optional: true, repeated: true })
    case "WithDefault":
      return argumentsOf(property(instruction, "args"), { ...how, optional: true })
    case "Map":
    case "WithFallback":
      return argumentsOf(property(instruction, "args"), how)
    default:
      return []
  }
}

/** The values of a choice; none of another option. */
const choicesOf = (single: unknown): ReadonlyArray<string> => {
  const choices = property(property(single, "primitiveType"), "alternatives")
  return Array.isArray(choices) ? choices.map((choice) => String(Array.isArray(choice) ? choice[0] : choice)) : []
}

/** `ID`, or a choice's values: `auto|kvm|qemu`. */
const valueOf = (single: unknown): string => {
  const choices = choicesOf(single)
  if (choices.length > 0) return choices.join("|")
  const pseudo = property(property(single, "pseudoName"), "value")
  return typeof pseudo === "string" ? pseudo : "VALUE"
}

const tagOf = (value: unknown): unknown => property(value, "_tag")

const property = (value: unknown, name: string): unknown => Predicate.hasProperty(value, name) ? value[name] : undefined

/** The words of a HelpDoc or of one of its spans. */
const plain = (doc: unknown): string => {
  if (!Predicate.isObject(doc)) return ""
  if (tagOf(doc) === "Text") return String(property(doc, "value"))
  const parts = ["left", "right", "value", "span"].map((name) => plain(property(doc, name)))
  return parts.join(" ").replaceAll(/\s+/g, " ").trim()
}
