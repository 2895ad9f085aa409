import { Buffer } from "node:buffer"
import { FormatError } from "../core/Errors.ts"
import type { KernelSpace } from "./KernelSpace.ts"
import type { KernelSymbol, Symbols } from "./Symbols.ts"
import type { Vmcoreinfo } from "./Vmcoreinfo.ts"

/** Bounds on what a table may claim; a kernel with all options has about 300,000 symbols in 4 MB of names. */
const MAX_SYMBOLS = 2 ** 21
const MAX_NAMES = 2 ** 26
/** `KSYM_NAME_LEN` (include/linux/kallsyms.h, v6.12) is 512, with the type letter. */
const MAX_NAME = 1024
const TOKENS = 256
const SUBJECT = "the guest's kallsyms"

/**
 * The symbol table that the kernel keeps for its own messages. A name is a row of tokens, each standing for a piece of
 * text; the first letter of the text is the symbol's type.
 *
 * One pass notes where each name starts and how long it is, decoded; a lookup then decodes only names of its length.
 * @see scripts/kallsyms.c `write_src`; kernel/kallsyms.c `kallsyms_expand_symbol`, `kallsyms_sym_address`, v6.12
 */
export class Kallsyms implements Symbols {
  readonly count: number
  readonly #names: Buffer
  readonly #offsets: DataView
  readonly #base: bigint
  /** Without it all offsets are unsigned and count from the base. */
  readonly #absolutePerCpu: boolean
  readonly #tokens: ReadonlyArray<Buffer>
  readonly #texts: ReadonlyArray<string>
  readonly #tokenLengths: Uint16Array
  /** Where a name's tokens start in the names, and the length of its text with the type letter; 0 for one too long. */
  readonly #starts: Uint32Array
  readonly #lengths: Uint16Array
  /** By a name that was asked for, its symbol's index, or -1. */
  readonly #indices = new Map<string, number>()
  /** Index of the first symbol that is not a per-CPU offset. */
  readonly #firstRelative: number

  /** @throws FormatError where the tables contradict themselves or `info`; wrap in `parsing`. */
  constructor(space: KernelSpace, info: Vmcoreinfo) {
    const address = (name: string): bigint => {
      const found = info.symbol(name)
      if (found === undefined) {
        throw broken(0, `SYMBOL(${name}) in VMCOREINFO: kernels before 6.0 have none; give --vmlinux`)
      }
      return found
    }
    const borrow = (name: string, bytes: number): Buffer => {
      const found = space.borrow(address(name), bytes)
      if (found === undefined) throw broken(0, `${name} to be readable (${space.faultText})`)
      return Buffer.from(found.buffer, found.byteOffset, found.byteLength)
    }
    const extent = (from: string, to: string, limit: number): number => {
      const bytes = address(to) - address(from)
      if (bytes <= 0n || bytes > BigInt(limit)) throw broken(0, `${to} at most ${limit} bytes after ${from}`)
      return Number(bytes)
    }
    const count = borrow("kallsyms_num_syms", 4).readUInt32LE(0)
    if (count === 0 || count > MAX_SYMBOLS) throw broken(0, `1 to ${MAX_SYMBOLS} symbols, not ${count}`)
    this.count = count
    this.#names = borrow("kallsyms_names", extent("kallsyms_names", "kallsyms_token_table", MAX_NAMES))
    const offsets = borrow("kallsyms_offsets", count * 4)
    this.#offsets = new DataView(offsets.buffer, offsets.byteOffset, offsets.byteLength)
    this.#base = borrow("kallsyms_relative_base", 8).readBigUInt64LE(0)
    this.#tokens = readTokens(
      borrow("kallsyms_token_table", extent("kallsyms_token_table", "kallsyms_token_index", 2 ** 17)),
      borrow("kallsyms_token_index", TOKENS * 2)
    )
    this.#texts = this.#tokens.map((token) => token.toString("latin1"))
    this.#tokenLengths = Uint16Array.from(this.#tokens, (token) => token.length)
    this.#starts = new Uint32Array(count)
    this.#lengths = new Uint16Array(count)
    this.#measure()

    const stext = this.#find("_stext")
    const expected = info.symbol("_stext")
    if (stext < 0 || expected === undefined) throw broken(0, "a symbol _stext, there and in VMCOREINFO")
    const word = this.#offsets.getUint32(stext * 4, true)
    this.#absolutePerCpu = this.#base - 1n - BigInt(word | 0) === expected
    if (!this.#absolutePerCpu && this.#base + BigInt(word) !== expected) {
      throw broken(stext, "an offset of _stext that agrees with VMCOREINFO in either encoding")
    }
    let first = 0
    if (this.#absolutePerCpu) { while (first < count && this.#offsets.getInt32(first * 4, true) >= 0) first++ }
    this.#firstRelative = first
  }

  /** One pass over all names, as bytes. */
  #measure(): void {
    const names = this.#names
    const lengths = this.#tokenLengths
    let at = 0
    for (let i = 0; i < this.count; i++) {
      let tokens = names[at++]
      if (tokens >= 0x80) tokens = (tokens & 0x7f) | (names[at++] << 7) // since v6.1
      if (!(tokens > 0 && at + tokens <= names.length)) throw broken(at, `${this.count} names inside their table`)
      this.#starts[i] = at
      let length = 0
      for (const end = at + tokens; at < end; at++) length += lengths[names[at]]
      this.#lengths[i] = length > MAX_NAME ? 0 : length
    }
  }

  #find(name: string): number {
    const wanted = Buffer.from(name, "latin1")
    for (let i = 0; i < this.count; i++) {
      if (this.#lengths[i] === wanted.length + 1 && this.#is(i, wanted)) return i
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
    if (!this.#absolutePerCpu) return this.#base + BigInt(this.#offsets.getUint32(i * 4, true))
    const offset = this.#offsets.getInt32(i * 4, true)
    return offset >= 0 ? BigInt(offset) : this.#base - 1n - BigInt(offset)
  }

  /** Bytes from the base, for a symbol that counts from it. */
  #relative(i: number): number {
    return this.#absolutePerCpu ? -1 - this.#offsets.getInt32(i * 4, true) : this.#offsets.getUint32(i * 4, true)
  }

  address(name: string): bigint | undefined {
    const i = this.#indices.get(name) ?? this.#find(name)
    this.#indices.set(name, i)
    return i < 0 ? undefined : this.#address(i)
  }

  at(address: bigint): { readonly name: string; readonly offset: number } | undefined {
    const distance = Number(address - this.#base)
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

  *entries(): Iterable<KernelSymbol & { readonly type: string }> {
    for (let i = 0; i < this.count; i++) {
      const type = this.#texts[this.#names[this.#starts[i]]].slice(0, 1)
      yield { name: this.#name(i), address: this.#address(i), type }
    }
  }
}

const broken = (offset: number, expected: string): FormatError =>
  new FormatError({ format: "kallsyms", subject: SUBJECT, offset, expected })

const readTokens = (table: Buffer, index: Buffer): ReadonlyArray<Buffer> =>
  Array.from({ length: TOKENS }, (_, i) => {
    const start = index.readUInt16LE(i * 2)
    const end = table.indexOf(0, start)
    if (start >= table.length || end < 0) throw broken(start, `token ${i} inside the table`)
    return table.subarray(start, end)
  })
