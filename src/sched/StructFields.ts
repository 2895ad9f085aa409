import * as Either from "effect/Either"
import type { Mutable } from "effect/Types"
import type { Btf } from "../btf/Btf.ts"
import { type Layout, layout } from "../btf/Layout.ts"
import { makeFunction } from "../btf/render/MakeFunction.ts"
import { cString } from "../core/CString.ts"

/**
 * An integer as JSON has it: a number where that is exact, else decimal digits.
 *
 * @since 0.1.0
 * @category models
 */
export type Int = number | string

/** An integer as JSON has it. */
export const intOf = (value: bigint): Int => Number.isSafeInteger(Number(value)) ? Number(value) : String(value)

type Kind = "uint" | "int" | "text" | "flag"

/**
 * How a field is read: its kind, and the member's path where that is not the field's own name.
 *
 * @since 0.1.0
 * @category models
 */
export interface FieldSpec<K extends Kind = Kind> {
  readonly kind: K
  readonly path: string | undefined
}
export const uint = (path?: string): FieldSpec<"uint"> => ({ kind: "uint", path })
export const int = (path?: string): FieldSpec<"int"> => ({ kind: "int", path })
export const text = (path?: string): FieldSpec<"text"> => ({ kind: "text", path })
export const flag = (path?: string): FieldSpec<"flag"> => ({ kind: "flag", path })

/**
 * How the fields of a struct are read, by name.
 *
 * @since 0.1.0
 * @category models
 */
export interface FieldSpecs {
  readonly [field: string]: FieldSpec
}
interface ValueOfKind {
  readonly uint: Int
  readonly int: Int
  readonly text: string
  readonly flag: boolean
}
/**
 * A struct's fields by name; what this kernel's struct does not have is left out.
 *
 * @since 0.1.0
 * @category models
 */
export type Values<Specs extends FieldSpecs> = { readonly [F in keyof Specs]?: ValueOfKind[Specs[F]["kind"]] }

interface FieldPlace {
  readonly name: string
  readonly kind: Kind
  readonly at: number
  readonly size: number
  readonly bits: { readonly offset: number; readonly size: number } | undefined
}

/**
 * A function that makes an object of the struct whose first word is at index `start`.
 *
 * @since 0.1.0
 * @category models
 */
export type StructMaker<Out> = (words: Uint32Array, start: number) => Out

/** Members of a kernel struct that are read together, each in the place and width that the kernel's BTF gives it. */
export class StructFields<Specs extends FieldSpecs> {
  /** The struct's size, in bytes. */
  readonly size: number
  /** Members that this kernel's struct lacks, as paths. */
  readonly lacking: ReadonlyArray<string>
  /**
   * All fields, with empty text: copied for each struct, since an object that gets its fields one by one by computed names
   * soon turns into a slow table.
   */
  readonly blank: Values<Specs>
  readonly #places: ReadonlyArray<FieldPlace>
  readonly #layout: Layout<string, string>

  constructor(found: Layout<string, string>, specs: Specs) {
    this.size = found.size
    this.#layout = found
    const all = Object.entries(specs).map(([name, { kind, path = name }]) => ({ name, kind, path }))
    this.lacking = all.filter(({ path }) => found.at[path] === undefined).map(({ path }) => path)
    this.#places = all.flatMap(({ kind, name, path }): ReadonlyArray<FieldPlace> => {
      const at: number | undefined = found.at[path]
      return at === undefined ? [] : [{ name, kind, at, size: found.sizeOf[path] ?? 0, bits: found.bits[path] }]
    })
    this.blank = JSON.parse(JSON.stringify(Object.fromEntries(this.#places.map(({ name }) => [name, ""]))))
  }

  get struct(): string {
    return this.#layout.struct
  }

  /** Where a member is, in bytes; undefined where the struct lacks it. */
  at(path: string): number | undefined {
    return this.#layout.at[path]
  }

  sizeOf(path: string): number | undefined {
    return this.#layout.sizeOf[path]
  }

  typeOf(path: string): number | undefined {
    return this.#layout.typeOf[path]
  }

  /** All fields of the struct that starts at `at`. */
  read(view: DataView, at: number): Values<Specs> {
    const out: Record<string, Int | string | boolean | undefined> = { ...this.blank }
    for (const place of this.#places) out[place.name] = valueAt(view, at, place)
    return out as Values<Specs>
  }

  /**
   * A function that makes an object of all fields, and of `more` behind them, to be set later: together an `Out`. For
   * structs of which there are thousands: its object literal with this kernel's places is quick even before V8 optimizes it.
   */
  maker<Out extends Values<Specs>>(
    more: { readonly [field in keyof Out]?: string | number | boolean | undefined } = {}
  ): StructMaker<Mutable<Out>> {
    const added = Object.entries(more).filter(([name]) => !Object.hasOwn(this.blank, name))
    const entries = [
      ...this.#places.map((place, n) => [place.name, sourceOf(place, n)]),
      ...added.map(([name, value]) => [name, String(JSON.stringify(value))])
    ]
    const literal = entries.map(([name, value]) => `${JSON.stringify(name)}: ${value}`).join(", ")
    const body = `return (words, start) => { let high; return { ${literal} } }`
    const texts = this.#places.map((place) => place.kind === "text" ? textMaker(place) : undefined)
    const other = (words: Uint32Array, start: number, n: number): Int | string | boolean =>
      texts[n]?.(words, start) ?? valueAt(new DataView(words.buffer, words.byteOffset), start * 4, this.#places[n])
    return makeFunction(["long", "other"], body)?.(longOf, other) ?? ((words: Uint32Array, start: number) => ({
      ...this.read(new DataView(words.buffer, words.byteOffset), start * 4),
      ...Object.fromEntries(added)
    }))
  }
}

/** Threads of a process come one after the other and mostly have one name: the words around the last one are compared first. */
const textMaker = ({ at, size }: FieldPlace): StructMaker<string> => {
  const index = Math.floor(at / 4)
  const count = Math.ceil((at % 4 + size) / 4)
  let last = new Uint32Array()
  let text = ""
  return (words, start) => {
    const first = start + index
    let same = last.length === count
    for (let n = 0; same && n < count; n++) same = words[first + n] === last[n]
    if (!same) {
      text = cString(words, start * 4 + at, size)
      last = words.slice(first, first + count)
    }
    return text
  }
}

/** JavaScript for the value of field `n`, by `words`, the struct's first one `start`, and `high` to keep one in. */
const sourceOf = ({ at, bits, kind, size }: FieldPlace, n: number): string => {
  const from = bits?.offset ?? at * 8
  const width = bits?.size ?? (size === 1 || size === 2 || size === 4 ? size * 8 : 64)
  const index = Math.floor(from / 32)
  const shift = from % 32
  const word = `words[start + ${index}]`
  let value = `other(words, start, ${n})`
  if (kind === "text") return value
  if (shift + width <= 32) {
    if (kind === "int") value = `${word} << ${32 - shift - width} >> ${32 - width}`
    else value = width === 32 ? word : `${word} >>> ${shift} & ${2 ** width - 1}`
  } else if (shift === 0 && width === 64 && bits === undefined) {
    // most are small
    const high = `(high = words[start + ${index + 1}])`
    value = `${high} === 0 ? ${word} : long(high${kind === "int" ? " | 0" : ""}, ${word})`
  } else return value
  return kind === "flag" ? `(${value}) !== 0` : value
}

/** The value of an integer's two halves: a number where it is exact, else a text. */
const longOf = (high: number, low: number): Int =>
  high < 0x20_0000 && high >= -0x20_0000 ? high * 2 ** 32 + low : String((BigInt(high) << 32n) + BigInt(low))

const valueAt = (view: DataView, at: number, { at: start, bits, kind, size }: FieldPlace): Int | string | boolean => {
  if (kind === "text") return cString(view, at + start, size)
  const value = bits === undefined
    ? integerAt(view, at + start, size, kind === "int")
    : bitsAt(view, at, bits, kind === "int")
  return kind === "flag" ? value !== 0 : value
}

/**
 * The fields of the struct of that name that has all `required` members, undefined where there is none. Members of `specs`
 * may be missing.
 * @param more members whose places are asked for, but that are not read
 */
export const structFields = <const Specs extends FieldSpecs>(
  btf: Btf,
  struct: string,
  specs: Specs,
  required: ReadonlyArray<string> = [],
  more: ReadonlyArray<string> = []
): StructFields<Specs> | undefined => {
  if (btf.idsByName(struct).length === 0) return undefined // most that are missing; to say why takes longer than to look
  const paths = [...Object.entries(specs).map(([name, { path = name }]) => path), ...more]
  return Either.match(
    layout<string, string>(btf, struct, required, paths.filter((path) => !required.includes(path))),
    { onLeft: () => undefined, onRight: (found) => new StructFields(found, specs) }
  )
}

/** An integer of 1, 2, 4 or 8 bytes. */
export const integerAt = (view: DataView, at: number, size: number, signed: boolean): Int => {
  switch (size) {
    case 1:
      return signed ? view.getInt8(at) : view.getUint8(at)
    case 2:
      return signed ? view.getInt16(at, true) : view.getUint16(at, true)
    case 4:
      return signed ? view.getInt32(at, true) : view.getUint32(at, true)
    default: {
      const high = signed ? view.getInt32(at + 4, true) : view.getUint32(at + 4, true)
      return longOf(high, view.getUint32(at, true))
    }
  }
}

const bitsAt = (
  view: DataView,
  at: number,
  { offset, size }: { readonly offset: number; readonly size: number },
  signed: boolean
): number => {
  let value = 0
  for (let bit = 0; bit < size; bit++) {
    const place = offset + bit
    value += ((view.getUint8(at + (place >>> 3)) >>> (place & 7)) & 1) * 2 ** bit
  }
  return signed && value >= 2 ** (size - 1) ? value - 2 ** size : value
}
