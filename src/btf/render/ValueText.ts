import { escapedJson, escapeText } from "../../core/EscapeText.ts"
import { formatReason } from "../../core/Reason.ts"
import type { ArrayValue, RenderedValue, StructValue } from "./RenderedValue.ts"

/**
 * How a value is written as text.
 *
 * @since 0.1.0
 * @category models
 */
export interface ValueTextOptions {
  /** Columns; a longer line only where one piece is longer. 100 if not given. */
  readonly width?: number
  /** How far the first line is already filled, in columns. */
  readonly column?: number
  /** Spaces that the lines after the first begin with. */
  readonly indent?: number
}

/** The length from which a run of equal elements is written once, as C's range designator: `[8 ... 63] = 0`. */
const RUN = 8
const STEP = 2

/**
 * A value as C would initialise it: `{ .pid = 7, .comm = "init" }` on one line if it fits, else a line a member. An
 * enum's bits are `A | B`, a null pointer `NULL`; what is not there is in angle brackets. What is not
 * printable in names is escaped (`escapeText`), so that a guest cannot write to the terminal.
 *
 * @since 0.1.0
 * @category rendering
 */
export const valueText = (
  value: RenderedValue,
  { column = 0, indent = 0, width = 100 }: ValueTextOptions = {}
): string => new Printer(width).print(value, indent, column)

class Printer {
  constructor(private readonly width: number) {}

  print(value: RenderedValue, indent: number, column: number): string {
    if (isLeaf(value)) return leafText(value)
    const line = oneLine(value, this.width - column)
    if (line !== undefined) return line
    const inner = indent + STEP
    const pad = " ".repeat(inner)
    const close = `\n${" ".repeat(indent)}}`
    switch (value._tag) {
      case "struct":
      case "union": {
        const lines = Array.from(membersOf(value), (run) => pad + this.run(run, inner))
        return `{\n${lines.join(",\n")}${close}`
      }
      case "array": {
        const pieces = Array.from(runsOf(value), (run) => this.run(run, inner))
        return `{\n${this.fill(pieces, ",", pad)}${close}`
      }
      case "bytes":
        return `{\n${this.fill(value.hex.match(/../g) ?? [], "", pad)}${close}`
    }
  }

  private run({ label, value }: Run, indent: number): string {
    return label + (typeof value === "string" ? value : this.print(value, indent, indent + label.length + 1))
  }

  /** As many pieces a line as fit; one of several lines has its lines for itself. */
  private fill(pieces: ReadonlyArray<string>, separator: string, pad: string): string {
    const lines: Array<string> = []
    let line = ""
    for (const [index, piece] of pieces.entries()) {
      const text = index < pieces.length - 1 ? piece + separator : piece
      const fits = line !== "" && !text.includes("\n") && !line.includes("\n")
        && pad.length + line.length + 1 + text.length <= this.width
      if (!fits && line !== "") lines.push(pad + line)
      line = fits ? `${line} ${text}` : text
    }
    return [...lines, pad + line].join("\n")
  }
}

interface Run {
  /** `.name = `, or `[8 ... 63] = ` before a value of several elements. */
  readonly label: string
  readonly value: RenderedValue | string
}

/** Lazily: a line that is full asks for no more. */
function* runsOf({ elements, omitted }: ArrayValue): Generator<Run> {
  for (let start = 0; start < elements.length;) {
    const text = oneLine(elements[start], 40)
    let end = start + 1
    while (text !== undefined && end < elements.length && oneLine(elements[end], 40) === text) end++
    if (end - start >= RUN) yield { label: `[${start} ... ${end - 1}] = `, value: elements[start] }
    else for (let index = start; index < end; index++) yield { label: "", value: elements[index] }
    start = end
  }
  if (omitted > 0) yield { label: "", value: `<${omitted} more>` }
}

function* membersOf({ members }: StructValue): Generator<Run> {
  for (const { name, value } of members) yield { label: `.${escapeText(name)} = `, value }
}

/** The text if it takes at most `room` columns; gives up as soon as it does not. */
const oneLine = (value: RenderedValue, room: number): string | undefined => {
  switch (value._tag) {
    case "struct":
    case "union":
      return enclosed(membersOf(value), room)
    case "array":
      return enclosed(runsOf(value), room)
    case "bytes":
      if (value.hex.length * 1.5 > room) return undefined
      return value.hex === "" ? "{}" : `{ ${(value.hex.match(/../g) ?? []).join(" ")} }`
    default: {
      if (value._tag === "enum" && flagsWidth(value.flags) > room) return undefined
      const text = leafText(value)
      return text.length <= room ? text : undefined
    }
  }
}

const enclosed = (runs: Iterable<Run>, room: number): string | undefined => {
  let text = ""
  for (const { label, value } of runs) {
    const begin = `${text === "" ? "{ " : ", "}${label}`
    const left = room - text.length - begin.length - 2
    const piece = left < 0 ? undefined : typeof value === "string" ? value : oneLine(value, left)
    if (piece === undefined || piece.length > left) return undefined
    text += begin + piece
  }
  return text === "" ? "{}" : `${text} }`
}

/** Columns that flags take at least: quicker to know than their text. */
const flagsWidth = (flags: ReadonlyArray<string>): number => flags.reduce((sum, name) => sum + name.length + 3, -3)

/** A value that is written as one piece, however long. */
type Leaf = Exclude<
  RenderedValue,
  { readonly elements: unknown } | { readonly members: unknown } | { readonly hex: string }
>

const isLeaf = (value: RenderedValue): value is Leaf =>
  !("elements" in value) && !("members" in value) && value._tag !== "bytes"

const leafText = (value: Leaf): string => {
  switch (value._tag) {
    case "int":
    case "bool":
    case "float":
      return String(value.value)
    case "char":
      return value.value >= 0x20 && value.value < 0x7f
        ? `${value.value} '${String.fromCharCode(value.value)}'`
        : String(value.value)
    case "enum":
      if (value.name !== null) return escapeText(value.name)
      return value.flags.length > 0 ? escapeText(value.flags.join(" | ")) : String(value.value)
    case "pointer":
      return value.value === 0n ? "NULL" : `0x${value.value.toString(16)}`
    case "string":
      return escapedJson(value.value)
    case "truncated":
      return `<truncated: ${value.had} of ${value.needed} bytes>`
    case "unsupported":
      return `<${escapeText(value.reason)}>`
    case "missing":
      return `<${escapeText(formatReason(value.reason))}>`
  }
}
