import * as Either from "effect/Either"
import type { Btf } from "../btf/Btf.ts"
import { type Layout, layout } from "../btf/Layout.ts"
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
  #lastBytes = new Uint8Array()
  #lastText = ""

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
    return this.into({ ...this.blank }, view, at)
  }

  /** The same in an object that has these fields, and perhaps more. */
  into<Out extends Values<Specs>>(out: Out, view: DataView, at: number): Out {
    const fields = out as Record<string, Int | string | boolean>
    for (const place of this.#places) {
      fields[place.name] = place.kind === "text"
        ? this.#text(view, at + place.at, place.size)
        : valueAt(view, at, place)
    }
    return out
  }

  /** Threads of a process come one after the other and mostly have one name: the last one is compared first. */
  #text(view: DataView, at: number, size: number): string {
    const last = this.#lastBytes
    let same = last.length === size
    for (let i = 0; same && i < size; i++) same = view.getUint8(at + i) === last[i]
    if (!same) {
      this.#lastText = cString(view, at, size)
      this.#lastBytes = new Uint8Array(view.buffer, view.byteOffset + at, size).slice()
    }
    return this.#lastText
  }
}

const valueAt = (view: DataView, at: number, { at: start, bits, kind, size }: FieldPlace): Int | boolean => {
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
      if (high < 0x20_0000 && high >= -0x20_0000) return high * 2 ** 32 + view.getUint32(at, true)
      return String(signed ? view.getBigInt64(at, true) : view.getBigUint64(at, true))
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
