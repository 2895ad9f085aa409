import { Buffer } from "node:buffer"
import { hex } from "../../core/Address.ts"
import type { KernelSpace } from "../KernelSpace.ts"
import type { KernelSymbol, Symbols } from "../Symbols.ts"
import type { Vmcoreinfo } from "../Vmcoreinfo.ts"
import { findKallsyms } from "./FindKallsyms.ts"
import { brokenKallsyms, kallsymsFromNote, type KallsymsTables, type OffsetTable, TOKENS } from "./KallsymsTables.ts"

/** `KSYM_NAME_LEN` (include/linux/kallsyms.h, v6.12) is 512, with the type letter. */
const MAX_NAME = 1024

/**
 * How an offset gives an address:
 * - `absolute per-CPU`: one below 0 counts down from the base - 1, others are absolute: x86-64 before v6.15
 * - `relative to the base`: unsigned: v6.15, "kallsyms: Remove KALLSYMS_ABSOLUTE_PERCPU"
 * - `relative to its place`: signed, from the offset's own address: v7.0, "kallsyms: Get rid of kallsyms relative base"
 * @see kernel/kallsyms.c `kallsyms_sym_address`, v6.12, v6.18, v7.3
 * @since 0.1.0
 * @category models
 */
export type KallsymsEncoding = "absolute per-CPU" | "relative to the base" | "relative to its place"

/** By the names of VMCOREINFO those of kallsyms: of the same address, so that they tell the encodings apart. */
const PROOFS = [
  ["_stext", "_stext"],
  ["init_uts_ns", "init_uts_ns"],
  ["swapper_pg_dir", "init_top_pgt"],
  ["kallsyms_names", "kallsyms_names"]
] as const
/**
 * The symbol table that the kernel keeps for its own messages. A name is a row of tokens, each standing for a piece of
 * text; the first letter of the text is the symbol's type.
 *
 * Two passes note where each name starts and sort the names by how long they are, decoded; a lookup then decodes only
 * names of its length.
 * @see scripts/kallsyms.c `write_src`; kernel/kallsyms.c `kallsyms_expand_symbol`, `kallsyms_sym_address`, v6.12
 * @since 0.1.0
 * @category models
 */
export class Kallsyms implements Symbols {
  readonly count: number
  readonly encoding: KallsymsEncoding
  /** How the tables were found, and what proves the encoding: a line for people. */
  readonly evidence: string
  readonly #names: Buffer
  readonly #offsets: DataView
  /** The address that relative offsets count from. */
  readonly #origin: bigint
  readonly #tokens: ReadonlyArray<Buffer>
  readonly #texts: ReadonlyArray<string>
  readonly #tokenLengths: Uint16Array
  /** Where a name's tokens start in the names, and the length of its text with the type letter; 0 for one too long. */
  readonly #starts: Uint32Array
  readonly #lengths: Uint16Array
  /** The names in the order of their lengths, those of a length in the order of the table … */
  readonly #byLength: Uint32Array
  /** … and where in it those of each length begin. */
  readonly #ofLength = new Uint32Array(MAX_NAME + 2)
  /** By a name that was asked for, its symbol's index, or -1. */
  readonly #indices = new Map<string, number>()
  /** Index of the first symbol that is not a per-CPU offset. */
  readonly #firstRelative: number

  /**
   * Of the encodings that the tables allow, the one is taken that agrees with every address that VMCOREINFO gives of a
   * symbol in the table.
   * @throws FormatError where the tables contradict themselves or `info`; wrap in `parsing`
   */
  constructor(space: KernelSpace, info: Vmcoreinfo) {
    const tables = tablesOf(space, info)
    this.count = tables.count
    // Copies, some 2 MiB: the tables may be borrowed from a mapping, and names are asked for after it has ended.
    this.#names = Buffer.from(tables.names)
    this.#tokens = readTokens(Buffer.from(tables.tokenTable), tables.tokenIndex)
    this.#texts = this.#tokens.map((token) => token.toString("latin1"))
    this.#tokenLengths = Uint16Array.from(this.#tokens, (token) => token.length)
    this.#starts = new Uint32Array(tables.count)
    this.#lengths = new Uint16Array(tables.count)
    this.#byLength = new Uint32Array(tables.count)
    this.#measure()

    const proved = this.#prove(tables, info)
    this.#origin = proved.origin
    this.encoding = proved.encoding
    this.#offsets = viewOf({ ...proved.table, bytes: Buffer.from(proved.table.bytes) })
    this.evidence = proved.evidence
    let first = 0
    if (this.encoding === "absolute per-CPU") {
      while (first < this.count && this.#offsets.getInt32(first * 4, true) >= 0) first++
    }
    this.#firstRelative = first
  }

  /** The table and the encoding that give VMCOREINFO's addresses. */
  #prove({ foundBy, offsetTables }: KallsymsTables, info: Vmcoreinfo) {
    const known = PROOFS.flatMap(([noted, name]) => {
      const address = info.symbol(noted)
      const index = address === undefined ? -1 : this.#indexOf(name)
      return address === undefined || index < 0 ? [] : [{ name, address, index }]
    })
    const stext = known.find(({ name }) => name === "_stext")
    if (stext === undefined) throw brokenKallsyms(0, "a symbol _stext, there and in VMCOREINFO")
    const tried: Array<string> = []
    for (const table of offsetTables) {
      const offsets = viewOf(table)
      for (const encoding of encodingsOf(table)) {
        const origin = table.base ?? table.address
        const decoded = (index: number) => addressOf(encoding, origin, offsets, index)
        if (known.every(({ address, index }) => decoded(index) === address)) {
          const proof = known.map(({ name }) => name).join(", ")
          const evidence =
            `${this.count} symbols, found by ${foundBy}, offsets ${encoding}: the address of ${proof} is VMCOREINFO's`
          return { table, origin, encoding, evidence }
        }
        tried.push(`${encoding} it is at ${hex(decoded(stext.index))}`)
      }
    }
    throw brokenKallsyms(
      stext.index,
      `offsets that give _stext at ${hex(stext.address)}, as VMCOREINFO does: ${[...new Set(tried)].join("; ")}`
    )
  }

  /** One pass over all names, as bytes. */
  #measure(): void {
    const names = this.#names
    const lengths = this.#tokenLengths
    let at = 0
    for (let i = 0; i < this.count; i++) {
      let tokens = names[at++]
      if (tokens >= 0x80) tokens = (tokens & 0x7f) | (names[at++] << 7) // since v6.1
      if (!(tokens > 0 && at + tokens <= names.length)) {
        throw brokenKallsyms(at, `${this.count} names inside their table`)
      }
      this.#starts[i] = at
      let length = 0
      for (const end = at + tokens; at < end; at++) length += lengths[names[at]]
      this.#lengths[i] = length > MAX_NAME ? 0 : length
    }
    const next = this.#ofLength
    for (let i = 0; i < this.count; i++) next[this.#lengths[i] + 1]++
    for (let length = 1; length < next.length; length++) next[length] += next[length - 1]
    const places = next.slice()
    for (let i = 0; i < this.count; i++) this.#byLength[places[this.#lengths[i]]++] = i
  }

  #find(name: string): number {
    const wanted = Buffer.from(name, "latin1")
    const length = wanted.length + 1
    if (length > MAX_NAME) return -1
    for (let at = this.#ofLength[length]; at < this.#ofLength[length + 1]; at++) {
      const i = this.#byLength[at]
      if (this.#is(i, wanted)) return i
    }
    return -1
  }

  /** Does name `i`, known to be as long as `wanted` and a type letter, spell it? */
  #is(i: number, wanted: Buffer): boolean {
    let at = this.#starts[i]
    for (let done = -1; done < wanted.length; at++) {
      const token = this.#tokens[this.#names[at]]
      for (let j = done < 0 ? 1 : 0; j < token.length; j++) {
        if (token[j] !== wanted[done + j]) return false
      }
      done += token.length
    }
    return true
  }

  #name(i: number): string {
    let text = ""
    for (let at = this.#starts[i]; text.length < this.#lengths[i]; at++) text += this.#texts[this.#names[at]]
    return text.slice(1)
  }

  #address(i: number): bigint {
    return addressOf(this.encoding, this.#origin, this.#offsets, i)
  }

  /** Bytes from the origin, for a symbol that counts from it. */
  #relative(i: number): number {
    return relativeOf(this.encoding, this.#offsets, i)
  }

  #indexOf(name: string): number {
    const i = this.#indices.get(name) ?? this.#find(name)
    this.#indices.set(name, i)
    return i
  }

  address(name: string): bigint | undefined {
    const i = this.#indexOf(name)
    return i < 0 ? undefined : this.#address(i)
  }

  at(address: bigint): { readonly name: string; readonly offset: number } | undefined {
    const distance = Number(address - this.#origin)
    let low = this.#firstRelative
    let high = this.count - 1
    if (!(low <= high && distance >= this.#relative(low) && distance <= this.#relative(high))) return undefined
    while (low < high) { // ends at the last symbol that is not above the address
      const middle = (low + high + 1) >>> 1
      if (this.#relative(middle) > distance) high = middle - 1
      else low = middle
    }
    let below = low
    while (below > this.#firstRelative && this.#relative(below - 1) === this.#relative(below)) below--
    return { name: this.#name(below), offset: distance - this.#relative(below) }
  }

  /** All symbols, in the order of the table, with their type letters as `nm` has them. */
  *entries(): Iterable<KernelSymbol & { readonly type: string }> {
    for (let i = 0; i < this.count; i++) {
      const type = this.#texts[this.#names[this.#starts[i]]].slice(0, 1)
      yield { name: this.#name(i), address: this.#address(i), type }
    }
  }
}

const tablesOf = (space: KernelSpace, info: Vmcoreinfo): KallsymsTables => {
  const tables = kallsymsFromNote(space, info) ?? findKallsyms(space, info)
  if (tables !== undefined) return tables
  throw brokenKallsyms(
    0,
    "kallsyms tables, in VMCOREINFO (v6.0 and newer) or by their structure in the image: was the kernel built with CONFIG_KALLSYMS=y? Or give its vmlinux"
  )
}

const viewOf = ({ bytes }: OffsetTable): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const encodingsOf = ({ base }: OffsetTable): ReadonlyArray<KallsymsEncoding> =>
  base === undefined ? ["relative to its place"] : ["absolute per-CPU", "relative to the base"]

const addressOf = (encoding: KallsymsEncoding, origin: bigint, offsets: DataView, i: number): bigint => {
  const absolute = encoding === "absolute per-CPU" ? offsets.getInt32(i * 4, true) : -1
  return absolute >= 0 ? BigInt(absolute) : BigInt.asUintN(64, origin + BigInt(relativeOf(encoding, offsets, i)))
}

const relativeOf = (encoding: KallsymsEncoding, offsets: DataView, i: number): number => {
  if (encoding === "relative to the base") return offsets.getUint32(i * 4, true)
  const offset = offsets.getInt32(i * 4, true)
  return encoding === "absolute per-CPU" ? -1 - offset : i * 4 + offset
}

const readTokens = (table: Buffer, index: Buffer): ReadonlyArray<Buffer> =>
  Array.from({ length: TOKENS }, (_, i) => {
    const start = index.readUInt16LE(i * 2)
    const end = table.indexOf(0, start)
    if (start >= table.length || end < 0) throw brokenKallsyms(start, `token ${i} inside the table`)
    return table.subarray(start, end)
  })
