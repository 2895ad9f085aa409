import { isLoss, type Reason, within } from "../../core/Reason.ts"

/**
 * A value decoded by its BTF type, for programs and people: every case tells by `_tag` what it is.
 * `toJson` gives the plain JSON of it, `valueText` C-like text.
 *
 * @since 0.1.0
 * @category models
 */
export type RenderedValue =
  | IntValue
  | { readonly _tag: "bool"; readonly value: boolean }
  /** A lone C character, by its number. */
  | { readonly _tag: "char"; readonly value: number }
  | EnumValue
  | { readonly _tag: "float"; readonly value: number }
  | StructValue
  | ArrayValue
  | { readonly _tag: "pointer"; readonly value: bigint }
  /** A char array that holds a NUL-terminated printable string; or text of the kernel, whatever its characters. */
  | { readonly _tag: "string"; readonly value: string }
  /** Bytes without a type that JSON could show: two lower-case hex digits each, in memory order. */
  | { readonly _tag: "bytes"; readonly hex: string }
  /** Only `had` of the `needed` bytes are there. */
  | { readonly _tag: "truncated"; readonly needed: number; readonly had: number }
  /** The type describes no value, or none that can be shown. */
  | { readonly _tag: "unsupported"; readonly reason: string }
  /** Of what this refers to, something that should be there is not. */
  | { readonly _tag: "missing"; readonly reason: Reason }

/**
 * An integer, decoded.
 *
 * @since 0.1.0
 * @category models
 */
export interface IntValue {
  readonly _tag: "int"
  /** A `bigint` only beyond ±(2^53 - 1). */
  readonly value: number | bigint
}
/**
 * An enum, decoded.
 *
 * @since 0.1.0
 * @category models
 */
export interface EnumValue {
  readonly _tag: "enum"
  readonly value: number | bigint
  /** The first name of `value`; null when it has none. */
  readonly name: string | null
  /** A value without a name that is the sum of named single bits: their names. Else empty. */
  readonly flags: ReadonlyArray<string>
}
/**
 * A struct, union or data section. An anonymous member is replaced by its members.
 *
 * @since 0.1.0
 * @category models
 */
export interface StructValue {
  readonly _tag: "struct" | "union"
  readonly members: ReadonlyArray<{ readonly name: string; readonly value: RenderedValue }>
}
/**
 * An array, decoded.
 *
 * @since 0.1.0
 * @category models
 */
export interface ArrayValue {
  readonly _tag: "array"
  readonly elements: ReadonlyArray<RenderedValue>
  /** How many more elements there are that were left out by a limit. */
  readonly omitted: number
}

/**
 * JSON as `JSON.parse` gives it.
 *
 * @since 0.1.0
 * @category models
 */
export type Json = null | boolean | number | string | ReadonlyArray<Json> | { readonly [key: string]: Json }

/**
 * The plain JSON of a value, as a codec's `json` writes it. Integers are numbers when JSON keeps them exact, else
 * decimal strings; enums are their name, or the number; pointers `"0x…"`; floats that JSON lacks are `"NaN"`,
 * `"Infinity"`, `"-Infinity"`; structs are objects, arrays arrays. What could not be rendered is an object with one
 * key that no C member has: `{"$truncated":{"needed":8,"had":4}}`, `{"$unsupported":"reason"}`, what is missing under its
 * reason's kind, `{"$unreadable":"0xffff… is not mapped"}`, and as the last element of an array `{"$omitted":12}`. GNU C
 * allows members that begin with `$`: they are given another one.
 *
 * @since 0.1.0
 * @category rendering
 */
export const toJson = (value: RenderedValue): Json => {
  switch (value._tag) {
    case "int":
      return typeof value.value === "bigint" ? value.value.toString() : value.value
    case "bool":
    case "char":
    case "string":
      return value.value
    case "enum":
      return value.name ?? (typeof value.value === "bigint" ? value.value.toString() : value.value)
    case "float":
      return Number.isFinite(value.value) ? value.value + 0 : String(value.value) // JSON.parse("-0") would keep its sign
    case "pointer":
      return `0x${value.value.toString(16)}`
    case "bytes":
      return value.hex
    case "struct":
    case "union":
      return Object.fromEntries(value.members.map((member) => [member.name, toJson(member.value)]))
    case "array": {
      const elements = value.elements.map(toJson)
      return value.omitted === 0 ? elements : [...elements, { $omitted: value.omitted }]
    }
    case "truncated":
      return { $truncated: { needed: value.needed, had: value.had } }
    case "unsupported":
      return { $unsupported: value.reason }
    case "missing":
      return { [`$${value.reason.kind}`]: value.reason.text }
  }
}

/** The reasons of the parts of a value that should be there and are not; only losses (`isLoss`). */
export const lossesInside = (value: RenderedValue): ReadonlyArray<Reason> => {
  const losses: Array<Reason> = []
  const visit = (part: RenderedValue): void => {
    switch (part._tag) {
      case "struct":
      case "union":
        return part.members.forEach((member) => visit(member.value))
      case "array":
        return part.elements.forEach(visit)
      case "missing":
        if (isLoss(part.reason)) losses.push(within("inside an entry", part.reason))
    }
  }
  visit(value)
  return losses
}
