import { Buffer } from "node:buffer"
import { brokenKallsyms, type KallsymsTables, TOKENS } from "./KallsymsTables.ts"

/** `KSYM_NAME_LEN` (include/linux/kallsyms.h, v6.12) is 512, with the type letter. */
const MAX_NAME = 1024
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
  #texts: ReadonlyArray<string> | undefined
  /** After `#open`: where a name's tokens start and end. */
  #from = 0
  #to = 0

  /** @throws FormatError where the names do not lie inside their table */
  constructor({ count, tokenIndex, tokenTable }: KallsymsTables, names: Buffer) {
    this.count = count
    this.#names = names
    this.#tokens = readTokens(Buffer.from(tokenTable), tokenIndex)
    this.#groups = new Uint32Array(Math.ceil(count / GROUP))
    for (let group = 0, at = 0; group < this.#groups.length; group++) {
      this.#groups[group] = at
      const end = this.#after(at, Math.min(GROUP, count - group * GROUP))
      if (!(end <= names.length)) throw brokenKallsyms(at, `${count} names inside their table`)
      at = end
    }
  }

  /** Where the name begins that is `names` after the one at `start`; NaN where one of them is empty or outside the table. */
  #after(start: number, names: number): number {
    const bytes = this.#names
    let at = start
    for (; names > 0; names--) {
      let tokens = bytes[at++]
      if (tokens >= 0x80) tokens = (tokens & 0x7f) | (bytes[at++] << 7) // since v6.1
      if (!(tokens > 0)) return NaN
      at += tokens
    }
    return at
  }

  #open(start: number): void {
    let tokens = this.#names[start++]
    if (tokens >= 0x80) tokens = (tokens & 0x7f) | (this.#names[start++] << 7)
    this.#from = start
    this.#to = start + tokens
  }

  /** Where name `i` begins. */
  start(i: number): number {
    return this.#after(this.#groups[Math.floor(i / GROUP)], i % GROUP)
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

  /** The first two tokens of the name at `start`, as one number below 2^16. */
  firstTokens(start: number): number {
    this.#open(start)
    const first = this.#names[this.#from] << 8
    return this.#to - this.#from === 1 ? first : first | this.#names[this.#from + 1]
  }

  /** All that `firstTokens` may give for a symbol `name`, whatever its type letter is. */
  firstTokensOf(name: string): ReadonlyArray<number> {
    const texts = this.#texts ??= this.#tokens.map((token) => token.toString("latin1"))
    const found: Array<number> = []
    /** By the length of the first token, those that the name may go on with. */
    const seconds: Array<Array<number> | undefined> = []
    for (let first = 0; first < TOKENS; first++) {
      const { length } = texts[first]
      if (length === 0 || !name.startsWith(texts[first].slice(1))) continue
      const rest = name.slice(length - 1)
      seconds[length] ??= rest === ""
        ? [0]
        : [...texts.keys()].filter((i) => texts[i] !== "" && rest.startsWith(texts[i]))
      for (const second of seconds[length]) found.push(first << 8 | second)
    }
    return found
  }
}

const readTokens = (table: Buffer, index: Buffer): ReadonlyArray<Buffer> =>
  Array.from({ length: TOKENS }, (_, i) => {
    const start = index.readUInt16LE(i * 2)
    const end = table.indexOf(0, start)
    if (start >= table.length || end < 0) throw brokenKallsyms(start, `token ${i} inside the table`)
    return table.subarray(start, end)
  })
