import { escapedJson } from "../../core/EscapeText.ts"
import type { WalkProblems } from "../../core/WalkProblems.ts"
import { lossesInside, type RenderedValue, toJson } from "./RenderedValue.ts"

const encoder = new TextEncoder()

/**
 * Text that is written over and over: its UTF-8 in little-endian words, the last one padded.
 *
 * @since 0.1.0
 * @category models
 */
export interface Literal {
  readonly words: Int32Array
  /** In bytes. */
  readonly length: number
}

export const literal = (text: string): Literal => {
  const bytes = encoder.encode(text)
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4)
  padded.set(bytes)
  return { words: new Int32Array(padded.buffer), length: bytes.length }
}

/**
 * Bytes to be written out, in one growing buffer. Codecs write at `at` directly, into `bytes` or by words through
 * `view`, after `ensure` has made room; both are replaced when the buffer grows.
 *
 * @since 0.1.0
 * @category models
 */
export class ByteSink {
  bytes: Uint8Array
  /** The same memory as `bytes`. */
  view: DataView
  /** How many bytes are written. */
  at = 0
  /** Those of the walk whose entries are written: parts that a value lacks are counted there. */
  problems: WalkProblems | null = null

  constructor(capacity = 1 << 16) {
    this.bytes = new Uint8Array(capacity)
    this.view = new DataView(this.bytes.buffer)
  }

  /** Write into these bytes from now on, which are the caller's; a sink that outgrows them goes on in a buffer of its own. */
  into(bytes: Uint8Array): void {
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.at = 0
  }

  /** Make room for `count` more bytes. */
  ensure(count: number): void {
    const needed = this.at + count
    if (needed <= this.bytes.length) return
    const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2))
    grown.set(this.bytes.subarray(0, this.at))
    this.bytes = grown
    this.view = new DataView(grown.buffer)
  }

  /** Append one byte. */
  byte(value: number): void {
    this.ensure(1)
    this.bytes[this.at++] = value
  }

  /** Word by word: for so few bytes, `Uint8Array.set` takes several times as long. */
  literal({ length, words }: Literal): void {
    this.ensure(words.length * 4)
    const { at, view } = this
    for (let word = 0; word < words.length; word++) view.setInt32(at + word * 4, words[word], true)
    this.at = at + length
  }

  /** Append a string as UTF-8. */
  text(text: string): void {
    this.ensure(text.length * 3)
    this.at += encoder.encodeInto(text, this.bytes.subarray(this.at)).written
  }

  /** Append a tree as its plain JSON. */
  tree(value: RenderedValue): void {
    if (this.problems !== null) { for (const loss of lossesInside(value)) this.problems.add(loss) }
    this.text(escapedJson(toJson(value)))
  }

  /** The bytes written so far, borrowed until the next write; the sink is empty afterwards. */
  take(): Uint8Array {
    const taken = this.bytes.subarray(0, this.at)
    this.at = 0
    return taken
  }
}
