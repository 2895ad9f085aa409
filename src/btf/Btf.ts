import type * as Either from "effect/Either"
import { FormatError, parsing } from "../core/FormatError.ts"
import {
  type BtfType,
  type Enumerator,
  Kind,
  kindOfInfo,
  type Member,
  type SectionVariable,
  vlenOfInfo
} from "./BtfType.ts"
import { asSigned, enumRange, isSignedIn } from "./EnumSign.ts"

/** A name longer than this is cut: the kernel's own limit is `KSYM_NAME_LEN`, 512 since v6.1. In bytes. */
const NAME_LIMIT = 512
/** Modifiers in a row before `peel` gives up. */
const PEEL_LIMIT = 32
/** The kernel refuses types of 4 GiB and more (kernel/bpf/btf.c `btf_array_resolve`, v6.12). */
const SIZE_LIMIT = 2 ** 32 - 1

/** Bytes after the 12 of `struct btf_type`, by kind: those that come once, and those of each of `vlen` elements. */
const FIXED = Uint8Array.of(0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0)
const EACH = Uint8Array.of(0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12)
/** Characters of names that are kept of one blob: all of a 7.3 kernel's are a sixteenth. Overlapping names have no end. */
const TEXT_LIMIT = 1 << 26
/** Stands for a name beyond that. */
const LEFT_OUT = "(name left out)"

/**
 * How a BTF blob is decoded.
 *
 * @since 0.1.0
 * @category models
 */
export interface BtfOptions {
  /** The name of these bytes in messages: a path, `map 12's BTF`. */
  readonly subject: string
  /** The BTF that split BTF continues: that of the kernel being read, never the host's. */
  readonly base?: Btf
  /** Makes the buffer of the index, aligned to 4 bytes; ordinary memory unless given. */
  readonly room?: (bytes: number) => Uint8Array
}

/**
 * One BTF blob: an index of its types, decoded on demand. It borrows `bytes`, which must not change.
 * Ids count from 1 (0 is `void`), or from where the base ends.
 * @see include/uapi/linux/btf.h and Documentation/bpf/btf.rst, v6.1 to v7.3
 * @since 0.1.0
 * @category models
 */
export class Btf {
  readonly subject: string
  readonly base: Btf | undefined
  /** Ids below this belong to the base. */
  readonly firstId: number
  /** One more than the last id. */
  readonly endId: number
  private readonly view: DataView
  /** The string section, and the offset its first byte has among the strings of base and blob. */
  private readonly text: Buffer
  private readonly firstString: number
  /** One more than the last offset of a string, the base's strings counted. */
  readonly endString: number
  /** By id - firstId: where the type's record lies in `view`, and the offset of its name. */
  private readonly records: Uint32Array
  private readonly nameAt: Uint32Array
  private readonly decoded = new Map<number, BtfType>()
  /** The layout section: by kind, bytes that come once and bytes of each element; empty where the blob has none. */
  private readonly layouts: Uint8Array
  /** Names by their offset in `text`, and the characters that more of them may take. */
  private readonly strings = new Map<number, string>()
  private textLeft = TEXT_LIMIT
  private readonly named = new Map<string, ReadonlyArray<number>>()

  /**
   * Index a blob. Only the frame is judged here: header, sections, the chain of type records, the names' offsets.
   * What the types refer to is checked when it is followed.
   */
  static readonly parse = (bytes: Uint8Array, options: BtfOptions): Either.Either<Btf, FormatError> =>
    parsing(() => new Btf(bytes, options))

  private constructor(bytes: Uint8Array, { base, room = (bytes) => new Uint8Array(bytes), subject }: BtfOptions) {
    const broken = (offset: number, expected: string) => new FormatError({ format: "BTF", subject, offset, expected })
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    if (bytes.byteLength < 24) throw broken(bytes.byteLength, "a header of 24 bytes")
    if (view.getUint16(0, true) === 0x9feb) throw broken(0, "little-endian BTF; this blob is of a big-endian kernel")
    if (view.getUint16(0, true) !== 0xeb9f) throw broken(0, "the magic number 9f eb")
    if (bytes[2] !== 1) throw broken(2, `version 1, not ${bytes[2]}`)
    const header = view.getUint32(4, true)
    if (header < 24 || header > bytes.byteLength) throw broken(4, "a header length from 24 to the blob's")
    const types = header + view.getUint32(8, true)
    const typesEnd = types + view.getUint32(12, true)
    const strings = header + view.getUint32(16, true)
    const stringsEnd = strings + view.getUint32(20, true)
    if (typesEnd > bytes.byteLength) throw broken(8, "a type section inside the blob")
    if (stringsEnd > bytes.byteLength) throw broken(16, "a string section inside the blob")
    // Split BTF may add no string of its own; otherwise a section starts with the empty string and ends one.
    if (stringsEnd === strings ? base === undefined : bytes[stringsEnd - 1] !== 0) {
      throw broken(stringsEnd, "a string section that ends with NUL")
    }
    if (base === undefined && bytes[strings] !== 0) throw broken(strings, "a string section that starts with NUL")

    this.subject = subject
    this.base = base
    this.view = view
    this.layouts = layoutSection(bytes, view, typesEnd, strings, broken)
    this.text = Buffer.from(bytes.buffer, bytes.byteOffset + strings, stringsEnd - strings)
    this.firstString = base?.endString ?? 0
    const endString = this.firstString + stringsEnd - strings
    this.endString = endString
    this.firstId = base?.endId ?? 1
    const most = Math.floor((typesEnd - types) / 12)
    const index = room(most * 8)
    const records = new Uint32Array(index.buffer, index.byteOffset, most)
    const names = new Uint32Array(index.buffer, index.byteOffset + most * 4, most)
    let count = 0
    let at = types
    while (at < typesEnd) {
      if (at + 12 > typesEnd) throw broken(at, "a type record inside the type section")
      const info = view.getUint32(at + 4, true)
      const kind = kindOfInfo(info)
      const name = view.getUint32(at, true)
      if (name >= endString) throw broken(at, "a name inside the string section")
      names[count] = name
      records[count++] = at
      at += kind > 0 && kind < FIXED.length
        ? 12 + FIXED[kind] + EACH[kind] * vlenOfInfo(info)
        : this.unknownSize(kind, vlenOfInfo(info), at, broken)
    }
    if (at > typesEnd) throw broken(records[count - 1], "a type record inside the type section")
    this.records = records.subarray(0, count)
    this.nameAt = names.subarray(0, count)
    this.endId = this.firstId + count
  }

  /** The size of a record of a kind that this reader does not know, as the blob's layout section, or its base's, says. */
  private unknownSize(kind: number, vlen: number, at: number, broken: Broken): number {
    let owner: Btf | undefined = this // oxlint-disable-line no-this-alias
    while (owner !== undefined && owner.layouts.length === 0) owner = owner.base
    const layouts = owner?.layouts ?? this.layouts
    if (kind === 0 || kind * 4 >= layouts.length) {
      const why = kind === 0 ? "not BTF" : "a newer format than this reader knows, and no layout section gives its size"
      throw broken(at, `a type of kind 1 to ${Kind.ENUM64}, not ${kind}: ${why}`)
    }
    const [fixed, each] = [layouts[kind * 4], layouts[kind * 4 + 1]]
    if ((fixed | each) % 4 !== 0) {
      throw broken(at, `whole words in the layout of kind ${kind}, not ${fixed} and ${each} bytes`)
    }
    return 12 + fixed + each * vlen
  }

  /** The blob, borrowed. */
  get bytes(): Uint8Array {
    const { buffer, byteLength, byteOffset } = this.view
    return new Uint8Array(buffer, byteOffset, byteLength)
  }

  /** The number of a type's kind (`Kind`), -1 if no type has this id. */
  kindOf(id: number): number {
    const owner = this.ownerOf(id)
    return owner === undefined ? (id === 0 ? Kind.VOID : -1) : kindOfInfo(owner.word(id, 4))
  }

  /** Where the name of a type lies among the strings of base and blob. */
  nameOffset(id: number): number {
    return this.wordOf(id, 0)
  }

  /** Where the record of one of this blob's own types begins, in bytes from the blob's start. */
  recordAt(id: number): number {
    return this.records[id - this.firstId]
  }

  /** The name of a type; empty when it has none or does not exist. */
  nameOf(id: number): string {
    const owner = this.ownerOf(id)
    return owner === undefined ? "" : owner.string(owner.word(id, 0))
  }

  /** Every type of this name, whatever its kind, in the base too; ascending. */
  idsByName(name: string): ReadonlyArray<number> {
    const ids = this.named.get(name) ?? this.searchName(name)
    this.named.set(name, ids)
    return ids
  }

  /** Looks at all names: a few milliseconds. */
  private searchName(name: string): ReadonlyArray<number> {
    const ids = this.base === undefined ? [] : [...this.base.idsByName(name)]
    if (name === "" || name.includes("\0")) return ids
    for (const offset of this.offsetsOf(name)) {
      const before = ids.length
      for (let index = this.nameAt.indexOf(offset); index !== -1; index = this.nameAt.indexOf(offset, index + 1)) {
        ids.push(this.firstId + index)
      }
      if (ids.length > before) break
    }
    return ids
  }

  /**
   * The type behind TYPEDEF, VOLATILE, CONST, RESTRICT and TYPE_TAG. After 32 of them (a cycle) it gives up and
   * returns the modifier it has reached.
   */
  peel(id: number): number {
    for (let hops = 0; hops < PEEL_LIMIT; hops++) {
      const kind = this.kindOf(id)
      const modifier = (kind >= Kind.TYPEDEF && kind <= Kind.RESTRICT) || kind === Kind.TYPE_TAG
      if (!modifier) return id
      id = this.refOf(id)
    }
    return id
  }

  /** Bytes of a value; of a VAR, those of its type. Undefined for what has no value, and from 4 GiB on. */
  sizeOf(id: number): number | undefined {
    let count = 1
    for (let hops = 0; hops < PEEL_LIMIT; hops++) {
      id = this.peel(id)
      const kind = this.kindOf(id)
      if (kind === Kind.VAR) id = this.refOf(id)
      else if (kind === Kind.ARRAY) {
        count *= this.wordOf(id, 20)
        id = this.wordOf(id, 12)
      } else {
        const size = kind === Kind.PTR ? 8 : SIZED.has(kind) ? this.wordOf(id, 8) : Infinity
        const bytes = count * size
        return bytes <= SIZE_LIMIT ? bytes : undefined
      }
    }
    return undefined
  }

  /** The type of this id, undefined if there is none. Decoded once. */
  type(id: number): BtfType | undefined {
    if (id === 0) return VOID
    const owner = this.ownerOf(id)
    if (owner === undefined) return undefined
    const known = owner.decoded.get(id)
    if (known !== undefined) return known
    const type = owner.decode(id)
    owner.decoded.set(id, type)
    return type
  }

  private ownerOf(id: number): Btf | undefined {
    let owner: Btf | undefined = this // oxlint-disable-line no-this-alias
    while (owner !== undefined && id < owner.firstId) owner = owner.base
    return owner !== undefined && id < owner.endId ? owner : undefined
  }

  /** The u32 at `offset` of one of this blob's own records. */
  private word(id: number, offset: number): number {
    return this.view.getUint32(this.records[id - this.firstId] + offset, true)
  }

  private wordOf(id: number, offset: number): number {
    return this.ownerOf(id)?.word(id, offset) ?? 0
  }

  private refOf(id: number): number {
    return this.wordOf(id, 8)
  }

  /** The string at an offset that counts through the base's strings; cut at 512 bytes, empty outside. */
  private string(offset: number): string {
    if (offset === 0) return ""
    let owner: Btf = this // oxlint-disable-line no-this-alias
    while (offset < owner.firstString && owner.base !== undefined) owner = owner.base
    if (offset >= owner.endString) return ""
    const start = offset - owner.firstString
    const known = owner.strings.get(start)
    if (known !== undefined) return known
    const { text } = owner
    const limit = Math.min(start + NAME_LIMIT, text.length)
    let end = start
    while (end < limit && text[end] !== 0) end++
    if (owner.textLeft < end - start) return LEFT_OUT
    owner.textLeft -= end - start
    const string = text.toString("utf8", start, end)
    owner.strings.set(start, string)
    return string
  }

  /**
   * Where a string lies, counted through the base's strings. Writers store each string once (libbpf `btf__dedup`,
   * LLVM), so the first copy that names a type is enough; a blob with many copies gets a bounded search.
   */
  private *offsetsOf(name: string): Generator<number> {
    if (this.base !== undefined) yield* this.base.offsetsOf(name)
    const { firstString, text } = this
    const wanted = Buffer.from(`\0${name}\0`)
    // Split BTF's strings may begin without a NUL before the first.
    if (text.subarray(0, wanted.length - 1).equals(wanted.subarray(1))) yield firstString
    let at = text.indexOf(wanted)
    for (let copies = 0; at !== -1 && copies < 16; copies++) {
      yield firstString + at + 1
      at = text.indexOf(wanted, at + 1)
    }
  }

  private decode(id: number): BtfType {
    const { view } = this
    const at = this.records[id - this.firstId]
    const info = view.getUint32(at + 4, true)
    const size = view.getUint32(at + 8, true) // or the type referred to
    const name = this.string(view.getUint32(at, true))
    const flag = info >>> 31 === 1
    const body = at + 12
    const count = vlenOfInfo(info)
    const kind = kindOfInfo(info)
    switch (kind) {
      case Kind.INT:
        return { kind: "INT", id, name, size, ...intEncoding(view.getUint32(body, true)) }
      case Kind.PTR:
        return { kind: "PTR", id, name, type: size }
      case Kind.TYPEDEF:
        return { kind: "TYPEDEF", id, name, type: size }
      case Kind.VOLATILE:
        return { kind: "VOLATILE", id, name, type: size }
      case Kind.CONST:
        return { kind: "CONST", id, name, type: size }
      case Kind.RESTRICT:
        return { kind: "RESTRICT", id, name, type: size }
      case Kind.TYPE_TAG:
        return { kind: "TYPE_TAG", id, name, type: size, attribute: flag }
      case Kind.ARRAY:
        return {
          kind: "ARRAY",
          id,
          type: view.getUint32(body, true),
          indexType: view.getUint32(body + 4, true),
          count: view.getUint32(body + 8, true)
        }
      case Kind.STRUCT:
      case Kind.UNION:
        return {
          kind: kind === Kind.STRUCT ? "STRUCT" : "UNION",
          id,
          name,
          size,
          members: this.members(body, count, flag)
        }
      case Kind.ENUM:
        return { kind: "ENUM", id, name, size, ...this.enumerators(body, count, size, flag) }
      case Kind.ENUM64:
        return { kind: "ENUM64", id, name, size, signed: flag, values: this.enumerators64(body, count, flag) }
      case Kind.FWD:
        return { kind: "FWD", id, name, of: flag ? "union" : "struct" }
      case Kind.FUNC:
        return { kind: "FUNC", id, name, type: size, linkage: count }
      case Kind.FUNC_PROTO: {
        const parameters = eachRecord(body, count, 8, (at) => ({
          name: this.string(view.getUint32(at, true)),
          type: view.getUint32(at + 4, true)
        }))
        return { kind: "FUNC_PROTO", id, returns: size, parameters }
      }
      case Kind.VAR:
        return { kind: "VAR", id, name, type: size, linkage: view.getUint32(body, true) }
      case Kind.DATASEC: {
        const variables = eachRecord(body, count, 12, (at): SectionVariable => ({
          type: view.getUint32(at, true),
          offset: view.getUint32(at + 4, true),
          size: view.getUint32(at + 8, true)
        }))
        return { kind: "DATASEC", id, name, size, variables }
      }
      case Kind.FLOAT:
        return { kind: "FLOAT", id, name, size }
      case Kind.DECL_TAG:
        return { kind: "DECL_TAG", id, name, type: size, component: view.getInt32(body, true), attribute: flag }
      default:
        return { kind: "UNKNOWN", id, name, number: kind }
    }
  }

  private members(body: number, count: number, bitFields: boolean): ReadonlyArray<Member> {
    const { view } = this
    return eachRecord(body, count, 12, (at) => {
      const where = view.getUint32(at + 8, true)
      return {
        name: this.string(view.getUint32(at, true)),
        type: view.getUint32(at + 4, true),
        bitOffset: bitFields ? where & 0x00ff_ffff : where,
        bitSize: bitFields ? where >>> 24 : 0
      }
    })
  }

  private enumerators(
    body: number,
    count: number,
    size: number,
    signed: boolean
  ): { readonly signed: boolean; readonly values: ReadonlyArray<Enumerator> } {
    const { view } = this
    const values = eachRecord(body, count, 8, (at): Enumerator => ({
      name: this.string(view.getUint32(at, true)),
      value: signed ? view.getInt32(at + 4, true) : view.getUint32(at + 4, true)
    }))
    const range = signed || size >= 4 ? undefined : enumRange(values)
    return range !== undefined && isSignedIn(range, size * 8)
      ? { signed: true, values: asSigned(values) }
      : { signed, values }
  }

  private enumerators64(body: number, count: number, signed: boolean): ReadonlyArray<Enumerator> {
    const { view } = this
    return eachRecord(body, count, 12, (at) => {
      const low = view.getUint32(at + 4, true)
      const high = signed ? view.getInt32(at + 8, true) : view.getUint32(at + 8, true)
      const near = high * 2 ** 32 + low
      return {
        name: this.string(view.getUint32(at, true)),
        value: Number.isSafeInteger(near) ? near : (BigInt(high) << 32n) + BigInt(low)
      }
    })
  }
}

/** The `count` records of `step` bytes after a type's header, each read at its place. */
const eachRecord = <A>(body: number, count: number, step: number, read: (at: number) => A): ReadonlyArray<A> =>
  Array.from({ length: count }, (_, index) => read(body + index * step))

/** The word after an INT's header. @see include/uapi/linux/btf.h `BTF_INT_ENCODING`, `BTF_INT_OFFSET`, `BTF_INT_BITS` */
const intEncoding = (word: number) => ({
  signed: (word & 0x0100_0000) !== 0,
  char: (word & 0x0200_0000) !== 0,
  bool: (word & 0x0400_0000) !== 0,
  bitOffset: (word >>> 16) & 0xff,
  bits: word & 0xff
})

type Broken = (offset: number, expected: string) => FormatError

/**
 * The layout section, 4 bytes a kind (`struct btf_layout`), which lies between types and strings. Headers before v7.2
 * end before they could tell of one.
 */
const layoutSection = (
  bytes: Uint8Array,
  view: DataView,
  typesEnd: number,
  strings: number,
  broken: Broken
): Uint8Array => {
  const header = view.getUint32(4, true)
  const length = header < 32 ? 0 : view.getUint32(28, true)
  if (length === 0) return new Uint8Array(0)
  const start = header + view.getUint32(24, true)
  if (start % 4 !== 0 || length % 4 !== 0) throw broken(24, "a layout section of whole words")
  if (start < typesEnd || start + length > strings) throw broken(24, "a layout section between types and strings")
  return bytes.subarray(start, start + length)
}

const VOID: BtfType = { kind: "VOID", id: 0 }

/** Kinds whose third word is their size in bytes. */
const SIZED = new Set<number>([
  Kind.INT,
  Kind.STRUCT,
  Kind.UNION,
  Kind.ENUM,
  Kind.ENUM64,
  Kind.FLOAT,
  Kind.DATASEC
])
