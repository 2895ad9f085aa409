import { Buffer } from "node:buffer"
import { brokenKallsyms, type KallsymsTables, TOKENS } from "./KallsymsTables.ts"

/** `KSYM_NAME_LEN` (include/linux/kallsyms.h, v6.12) is 512, with the type letter. */
export const MAX_NAME = 1024
/** Names from one kept place to the next, as in `kallsyms_markers`. */
const GROUP = 256

/**
 * The names of kallsyms, one behind the other. A name is a row of tokens, each standing for a piece of text; the first
 * letter of the text is the symbol's type. One pass notes where each 256th name begins; the rest is decoded when it is
 * asked for, by the place where a name begins, in bytes.
 * @see scripts/kallsyms.c `write_src`; kernel/kallsyms.c `kallsyms_expand_symbol`, `get_symbol_offset`, v6.12
 */
export class SymbolNames {
  readonly count: number
  readonly #names: Buffer
  readonly #tokens: ReadonlyArray<Buffer>
  readonly #groups: Uint32Array
  /** After `#open`: where a name's tokens start and end. */
  #from = 0
  #to = 0

  /** @throws FormatError where the names do not lie inside their table */
  constructor({ count, tokenIndex, tokenTable }: KallsymsTables, names: Buffer) {
    this.count = count
    this.#names = names
    this.#tokens = readTokens(Buffer.from(tokenTable), tokenIndex)
    this.#groups = new Uint32Array(Math.ceil(count / GROUP))
    let at = 0
    for (let i = 0; i < count; i++) {
      if (i % GROUP === 0) this.#groups[i / GROUP] = at
      let tokens = names[at++]
      if (tokens >= 0x80) tokens = (tokens & 0x7f) | (names[at++] << 7) // since v6.1
      at += tokens
      if (!(tokens > 0 && at <= names.length)) throw brokenKallsyms(at, `${count} names inside their table`)
    }
  }

  #open(start: number): void {
    let tokens = this.#names[start++]
    if (tokens >= 0x80) tokens = (tokens & 0x7f) | (this.#names[start++] << 7)
    this.#from = start
    this.#to = start + tokens
  }

  /** Where name `i` begins. */
  start(i: number): number {
    let at = this.#groups[Math.floor(i / GROUP)]
    for (let left = i % GROUP; left > 0; left--) at = this.next(at)
    return at
  }

  /** Where the name after the one at `start` begins. */
  next(start: number): number {
    this.#open(start)
    return this.#to
  }

  /** The type letter of the name at `start`, as `nm` has it. */
  type(start: number): string {
    this.#open(start)
    return this.#tokens[this.#names[this.#from]].toString("latin1", 0, 1)
  }

  /** The name at `start`, without its type letter, cut near `MAX_NAME`: what tokens stand for has no bound of its own. */
  name(start: number): string {
    this.#open(start)
    let text = ""
    for (let at = this.#from; at < this.#to && text.length < MAX_NAME; at++) {
      text += this.#tokens[this.#names[at]].toString("latin1")
    }
    return text.slice(1, MAX_NAME)
  }

  /** As strcmp(3): below 0 where the name at `start` comes before `wanted` in the order of bytes, 0 where it is that. */
  compare(start: number, wanted: Buffer): number {
    this.#open(start)
    let done = -1
    for (let at = this.#from; at < this.#to; at++) {
      const token = this.#tokens[this.#names[at]]
      for (let j = done < 0 ? 1 : 0; j < token.length; j++) {
        const difference = done + j < wanted.length ? token[j] - wanted[done + j] : 1
        if (difference !== 0) return difference
      }
      done += token.length
    }
    return done < wanted.length ? -1 : 0
  }

  /** Of each name where it begins, and how long it is with its type letter; 0 for one longer than `MAX_NAME`. */
  measure(): { readonly starts: Uint32Array; readonly lengths: Uint16Array } {
    const ofToken = Uint16Array.from(this.#tokens, (token) => token.length)
    const starts = new Uint32Array(this.count)
    const lengths = new Uint16Array(this.count)
    let start = 0
    for (let i = 0; i < this.count; i++) {
      starts[i] = start
      this.#open(start)
      start = this.#to
      let length = 0
      for (let at = this.#from; at < start; at++) length += ofToken[this.#names[at]]
      lengths[i] = length > MAX_NAME ? 0 : length
    }
    return { starts, lengths }
  }
}

const readTokens = (table: Buffer, index: Buffer): ReadonlyArray<Buffer> =>
  Array.from({ length: TOKENS }, (_, i) => {
    const start = index.readUInt16LE(i * 2)
    const end = table.indexOf(0, start)
    if (start >= table.length || end < 0) throw brokenKallsyms(start, `token ${i} inside the table`)
    return table.subarray(start, end)
  })
