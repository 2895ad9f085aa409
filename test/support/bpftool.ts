/**
 * What bpftool 7.1 prints (`-j`), made comparable with ktstr's plain JSON. Its quirks, all seen in real output:
 * - a `u64` is printed with all its digits, which `JSON.parse` rounds;
 * - anonymous members have the key `""`, several times in one object;
 * - bit-fields are hex strings without sign, `bool` and enum ones too; pointers are decimal; 128-bit integers hex strings;
 * - an enum's number without a name is signed, whatever the enum is;
 * - a `char` array that holds a string is one only if its element is `char` itself, not a typedef of it;
 * - a backslash in such a string is printed as `\n` (a line feed cannot stand there: it is not printable);
 * - a data section is a list of objects with one member each, and its entry has no key;
 * - a float ends its structure with `(unsupported-kind`, in newer ones with `)` behind it, which is no JSON.
 */

/** ktstr's plain JSON: no integer in it is beyond ±(2^53 - 1), those are decimal strings. */
export type Plain = null | boolean | number | string | ReadonlyArray<Plain> | { readonly [name: string]: Plain }

/** JSON as printed: numbers keep their digits, objects all their members in order. */
export type Printed = null | boolean | string | Digits | Members | ReadonlyArray<Printed> | typeof UNSUPPORTED
export class Digits {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}
export class Members {
  readonly list: ReadonlyArray<readonly [name: string, value: Printed]>
  constructor(list: ReadonlyArray<readonly [name: string, value: Printed]>) {
    this.list = list
  }
  get(name: string): Printed | undefined {
    return this.list.find(([key]) => key === name)?.[1]
  }
}
/** Stands for a value of a kind that bpftool cannot print; the rest of its structure is missing. */
export const UNSUPPORTED = Symbol("unsupported-kind")

const TOKEN =
  /\s*(?:([[\]{},:])|("(?:[^"\\]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(true|false|null)|(\(unsupported-kind\)?))/y

/** Parse what bpftool printed without losing a digit or a member. Throws on anything else. */
export const parsePrinted = (text: string): Printed => {
  TOKEN.lastIndex = 0
  let token: RegExpExecArray
  const advance = (): void => {
    const at = TOKEN.lastIndex
    const found = TOKEN.exec(text)
    if (found === null) throw new Error(`not bpftool's JSON at ${at}: ${text.slice(at, at + 40)}`)
    token = found
  }
  const expect = (mark: string): void => {
    if (token[1] !== mark) throw new Error(`expected ${mark} before ${TOKEN.lastIndex}, found ${token[0]}`)
  }
  const string = (): string => {
    const value: unknown = token[2] === undefined ? undefined : JSON.parse(token[2])
    if (typeof value !== "string") throw new Error(`expected a string before ${TOKEN.lastIndex}, found ${token[0]}`)
    return value
  }
  const listOf = <A>(close: string, item: () => A): Array<A> => {
    const items: Array<A> = []
    for (advance(); token[1] !== close; advance()) {
      if (items.length > 0) {
        expect(",")
        advance()
      }
      items.push(item())
    }
    return items
  }
  const value = (): Printed => {
    if (token[2] !== undefined) return string()
    if (token[3] !== undefined) return new Digits(token[3])
    if (token[4] !== undefined) return token[4] === "null" ? null : token[4] === "true"
    if (token[5] !== undefined) return UNSUPPORTED
    if (token[1] === "[") return listOf("]", value)
    expect("{")
    return new Members(listOf("}", () => {
      const name = string()
      advance()
      expect(":")
      advance()
      return [name, value()] as const
    }))
  }
  advance()
  const result = value()
  if (text.slice(TOKEN.lastIndex).trim() !== "") throw new Error(`more after the JSON: ${text.slice(TOKEN.lastIndex)}`)
  return result
}

/** A type of `bpftool btf dump -j`; which members there are depends on `kind`. */
export interface PrintedType {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly size?: number
  readonly type_id?: number
  readonly nr_elems?: number
  readonly encoding?: string
  readonly members?: ReadonlyArray<{ name: string; type_id: number; bits_offset: number; bitfield_size?: number }>
  readonly values?: ReadonlyArray<{ name: string; val: number }>
  readonly vars?: ReadonlyArray<{ type_id: number; offset: number; size: number }>
}

/** The types of one BTF object, from `bpftool btf dump -j id N`. */
export class PrintedTypes {
  readonly byId: ReadonlyMap<number, PrintedType>
  constructor(dump: string) {
    const { types }: { types: ReadonlyArray<PrintedType> } = JSON.parse(dump)
    this.byId = new Map(types.map((type) => [type.id, type]))
  }
  type(id: number): PrintedType {
    const type = this.byId.get(id)
    if (type === undefined) throw new Error(`no type ${id} in the BTF dump`)
    return type
  }
  /** The type behind typedefs (unless `typedefs` is false) and qualifiers. */
  peel(id: number, typedefs = true): PrintedType {
    const type = this.type(id)
    return QUALIFIERS.has(type.kind) || (typedefs && type.kind === "TYPEDEF")
      ? this.peel(type.type_id ?? 0, typedefs)
      : type
  }
  /**
   * The types of a map's key and value: the members `key` and `value` of the variable in `.maps` whose name begins with
   * the map's (the kernel keeps 15 bytes of it), or the data section that the map's name ends with.
   */
  ofMap(mapName: string): { readonly key: number | undefined; readonly value: number | undefined } {
    for (const type of this.byId.values()) {
      if (type.kind === "DATASEC" && type.name !== ".maps" && mapName.endsWith(type.name)) {
        return { key: undefined, value: type.id }
      }
      if (type.kind === "VAR" && (type.name === mapName || (mapName.length === 15 && type.name.startsWith(mapName)))) {
        const members = this.peel(type.type_id ?? 0).members ?? []
        const pointee = (name: string): number | undefined => {
          const member = members.find((candidate) => candidate.name === name)
          return member === undefined ? undefined : this.type(member.type_id).type_id
        }
        return { key: pointee("key"), value: pointee("value") }
      }
    }
    return { key: undefined, value: undefined }
  }
}
const QUALIFIERS: ReadonlySet<string> = new Set(["CONST", "VOLATILE", "RESTRICT", "TYPE_TAG"])

/** Thrown by `plainOf` for values that bpftool did not print. */
export class NotPrinted extends Error {}

/** An integer as plain JSON has it. */
export const plainInteger = (value: bigint): number | string =>
  value >= -MAX_SAFE && value <= MAX_SAFE ? Number(value) : value.toString()
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER)

/** The plain JSON of a printed value of a type; of a bit-field if `bits` is not 0. Throws `NotPrinted`. */
const plainOf = (printed: Printed | undefined, types: PrintedTypes, typeId: number, bits = 0): Plain => {
  if (printed === undefined || printed === UNSUPPORTED) throw new NotPrinted("bpftool does not print this kind of type")
  const type = types.peel(typeId)
  const odd = (): never => {
    throw new Error(`unexpected form of a ${type.kind} ${type.name}: ${JSON.stringify(printed)?.slice(0, 80)}`)
  }
  switch (type.kind) {
    case "INT": {
      if (typeof printed === "boolean") return printed
      const value = integerOf(printed) ?? odd()
      if (type.encoding === "BOOL") return value !== 0n
      const width = bits > 0 ? bits : 8 * (type.size ?? 0)
      return plainInteger(type.encoding === "SIGNED" ? BigInt.asIntN(width, value) : value)
    }
    case "ENUM":
    case "ENUM64": {
      if (typeof printed === "string" && !printed.startsWith("0x")) return printed
      const width = bits > 0 ? bits : 8 * (type.size ?? 0)
      const value = (type.encoding === "SIGNED" ? BigInt.asIntN : BigInt.asUintN)(width, integerOf(printed) ?? odd())
      return type.values?.find(({ val }) => BigInt(val) === value)?.name ?? plainInteger(value)
    }
    case "PTR":
      return `0x${(integerOf(printed) ?? odd()).toString(16)}`
    case "ARRAY": {
      if (typeof printed === "string") return printed.replaceAll("\n", "\\")
      if (!Array.isArray(printed)) return odd()
      const element = type.type_id ?? 0
      const items = printed.map((item: Printed) => plainOf(item, types, element))
      const base = types.peel(element)
      // The typedefs that bpftool does not look through.
      return base.name === "char" && types.peel(element, false).kind === "TYPEDEF" ? (stringOf(items) ?? items) : items
    }
    case "STRUCT":
    case "UNION": {
      if (!(printed instanceof Members)) return odd()
      const object: Record<string, Plain> = {}
      type.members?.forEach((member, index) => {
        const [name, value] = printed.list[index] ?? []
        const expected = member.name === "(anon)" ? "" : member.name
        if (name !== undefined && name !== expected) odd()
        const plain = plainOf(value, types, member.type_id, member.bitfield_size ?? 0)
        if (name === "") Object.assign(object, plain)
        else object[member.name] = plain
      })
      return object
    }
    case "DATASEC": {
      const list = printed instanceof Members ? printed.get(type.name) : undefined
      if (!Array.isArray(list) || list.length !== type.vars?.length) return odd()
      return Object.fromEntries(list.map((item: Printed, index) => {
        const variable = types.type(type.vars?.[index]?.type_id ?? 0)
        const value = item instanceof Members ? item.get(variable.name) : odd()
        return [variable.name, plainOf(value, types, variable.type_id ?? 0)]
      }))
    }
    default:
      return odd()
  }
}

const integerOf = (printed: Printed): bigint | undefined =>
  printed instanceof Digits
    ? BigInt(printed.text)
    : typeof printed === "string" && /^0x[0-9a-f]+$/.test(printed)
    ? BigInt(printed)
    : undefined

/** The string that an array of characters holds: printable up to a NUL. */
const stringOf = (items: ReadonlyArray<Plain>): string | undefined => {
  const end = items.indexOf(0)
  const text = items.slice(0, Math.max(end, 0))
  if (end < 0 || !text.every((c) => typeof c === "number" && c >= 0x20 && c < 0x7f)) return undefined
  return String.fromCharCode(...text.map(Number))
}

/** A map of `bpftool map list -j`. */
export interface PrintedMap {
  readonly id: number
  readonly name: string
  readonly type: string
  readonly flags: number
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
  readonly btfId: number | null
}

/** Types that bpftool 7.1 has no names for: it prints their numbers. */
const NEWER = new Map([[32, "cgrp_storage"], [33, "arena"]])

/** The maps of `bpftool map list -j`, by id. */
export const parseMaps = (text: string): ReadonlyArray<PrintedMap> => {
  const maps: ReadonlyArray<Record<string, number> & { name?: string; type: string | number }> = JSON.parse(text)
  return maps.map((map) => ({
    id: map["id"],
    name: map.name ?? "",
    type: typeof map.type === "string" ? map.type : NEWER.get(map.type) ?? `type ${map.type}`,
    flags: map["flags"],
    keySize: map["bytes_key"],
    valueSize: map["bytes_value"],
    maxEntries: map["max_entries"],
    btfId: map["btf_id"] ?? null
  }))
}

/** Of one entry: its bytes as hex, and its plain JSON if the map has types. */
export interface PrintedEntry {
  readonly keyHex: string
  /** One, or in per-CPU maps one a possible CPU, in the order of the CPUs. */
  readonly valuesHex: ReadonlyArray<string>
  /** As in ktstr's dump, or why there is none. */
  readonly plain: { key: Plain; value: Plain } | { key: Plain; cpus: ReadonlyArray<Plain> } | NotPrinted
}

/** Types with an index for a key, besides those that are called arrays. */
const INDEXED = new Set(["stack_trace", "devmap", "devmap_hash", "sockmap", "cpumap", "xskmap"])

/**
 * The entries of `bpftool map dump -j`. `types` is the map's BTF, if it has one. Bytes without a type become one hex
 * string; the key of an array, where it has no type, its index. A key whose value bpf(2) would not give, which is printed
 * with an error, is no entry.
 */
export const parseEntries = (text: string, map: PrintedMap, types?: PrintedTypes): ReadonlyArray<PrintedEntry> => {
  const printed = parsePrinted(text)
  if (!Array.isArray(printed)) throw new Error(`map ${map.id} was not dumped: ${text.slice(0, 200)}`)
  const ids = types?.ofMap(map.name) ?? { key: undefined, value: undefined }
  return printed.flatMap((entry: Printed) => {
    if (!(entry instanceof Members)) throw new Error(`map ${map.id}: an entry that is no object`)
    const whole = entry.get("value")
    if (whole instanceof Members && whole.get("error") !== undefined) return []
    const keyHex = hexOf(entry.get("key"))
    const perCpu = cpusOf(entry.get("values"))
    const valuesHex = (perCpu ?? [whole]).map(hexOf)
    const formatted = entry.get("formatted")
    const value = (form: Printed | undefined, hex: string): Plain =>
      types !== undefined && ids.value !== undefined ? plainOf(form, types, ids.value) : hex
    const plain = (): PrintedEntry["plain"] => {
      const form = formatted instanceof Members ? formatted : new Members([])
      const key = types !== undefined && ids.key !== undefined
        ? plainOf(form.get("key"), types, ids.key)
        : map.type.endsWith("array") || INDEXED.has(map.type)
        ? indexOf(keyHex)
        : keyHex
      if (perCpu === undefined) return { key, value: value(form.get("value"), valuesHex[0]) }
      const cpus = cpusOf(form.get("values")) ?? []
      return { key, cpus: valuesHex.map((hex, cpu) => value(cpus[cpu], hex)) }
    }
    return [{ keyHex, valuesHex, plain: orNotPrinted(plain) }]
  })
}

const orNotPrinted = <A>(make: () => A): A | NotPrinted => {
  try {
    return make()
  } catch (error) {
    if (error instanceof NotPrinted) return error
    throw error
  }
}

/** `["0x01","0xff"]` → `"01ff"`. */
const hexOf = (printed: Printed | undefined): string => {
  if (!Array.isArray(printed)) throw new NotPrinted(`no bytes: ${JSON.stringify(printed)}`)
  return printed.map((byte: Printed) => String(byte).slice(2)).join("")
}

const indexOf = (hex: string): number => Buffer.from(hex, "hex").readUInt32LE(0)

/** `[{cpu: 0, value: …}, …]` → the values, in the order of the CPUs. */
const cpusOf = (printed: Printed | undefined): ReadonlyArray<Printed> | undefined => {
  if (!Array.isArray(printed)) return undefined
  return printed.map((item: Printed, index) => {
    const cpu = item instanceof Members ? item.get("cpu") : undefined
    const value = item instanceof Members ? item.get("value") : undefined
    if (!(cpu instanceof Digits) || Number(cpu.text) !== index || value === undefined) {
      throw new Error(`CPU ${index} is not where it should be`)
    }
    return value
  })
}
