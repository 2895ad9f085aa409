const encoder = new TextEncoder()

/**
 * Bytes to be written out, in one growing buffer. Codecs write at `at` directly, into `bytes` or by words through
 * `view`, after `ensure` has made room; both are replaced when the buffer grows.
 */
export class ByteSink {
  bytes: Uint8Array
  /** The same memory as `bytes`. */
  view: DataView
  /** How many bytes are written. */
  at = 0

  constructor(capacity = 1 << 16) {
    this.bytes = new Uint8Array(capacity)
    this.view = new DataView(this.bytes.buffer)
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

  byte(value: number): void {
    this.ensure(1)
    this.bytes[this.at++] = value
  }

  raw(bytes: Uint8Array): void {
    this.ensure(bytes.length)
    this.bytes.set(bytes, this.at)
    this.at += bytes.length
  }

  /** Append a string as UTF-8. */
  text(text: string): void {
    this.ensure(text.length * 3)
    this.at += encoder.encodeInto(text, this.bytes.subarray(this.at)).written
  }

  /** What is written, borrowed until the next write; the sink is empty then. */
  take(): Uint8Array {
    const taken = this.bytes.subarray(0, this.at)
    this.at = 0
    return taken
  }
}
