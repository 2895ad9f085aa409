import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

/** Characters of finished lines that stay in memory; up to twice as many before the oldest go. */
const TAIL = 2 ** 20
/** A line longer than this is cut: a guest that never ends one must not fill our memory. */
const LONGEST_LINE = 2 ** 16

/**
 * The text of a guest's console. Bytes go in by `push`, lines come out as streams, each from the start however late it
 * is run. Only the newest 1 MiB is kept: a reader that comes later than that starts at the oldest line still there.
 */
export class Console {
  readonly #decoder = new TextDecoder()
  readonly #waiting = new Set<() => void>()
  #lines: Array<string> = []
  #dropped = 0
  #characters = 0
  #unfinished = ""
  #ended = false

  push(bytes: Uint8Array): void {
    this.#append(this.#decoder.decode(bytes, { stream: true }))
    this.#wake()
  }

  /** No more bytes will come; a last line without its newline counts as a line. */
  end(): void {
    if (this.#ended) return
    this.#append(this.#decoder.decode())
    if (this.#unfinished !== "") this.#append("\n")
    this.#ended = true
    this.#wake()
  }

  /** The newest line that is not blank, finished or not. */
  get lastLine(): string | undefined {
    return this.#unfinished.trim() !== "" ? this.#unfinished.trim() : this.#lines.findLast((line) => line.trim() !== "")
  }

  /** The lines still kept, oldest first. */
  get tail(): ReadonlyArray<string> {
    return this.#unfinished === "" ? this.#lines.slice() : [...this.#lines, this.#unfinished]
  }

  /** Every line without its line end, from the start; ends when the VM has ended. */
  readonly lines: Stream.Stream<string> = Stream.paginateChunkEffect(
    0,
    (next: number) =>
      Effect.map(
        this.#linesFrom(next),
        ([lines, after]) => [Chunk.unsafeFromArray(lines), lines.length === 0 ? Option.none() : Option.some(after)]
      )
  )

  /** At least one line numbered `next` or later, and the number after the last; none when the console has ended. */
  #linesFrom(next: number): Effect.Effect<readonly [ReadonlyArray<string>, number]> {
    return Effect.async((resume) => {
      const answer = () => {
        const after = this.#dropped + this.#lines.length
        if (next >= after && !this.#ended) return
        this.#waiting.delete(answer)
        resume(Effect.succeed([this.#lines.slice(Math.max(0, next - this.#dropped)), after]))
      }
      this.#waiting.add(answer)
      answer()
      return Effect.sync(() => this.#waiting.delete(answer))
    })
  }

  #append(decoded: string): void {
    const pieces = (this.#unfinished + decoded).split("\n")
    this.#unfinished = pieces.pop() ?? ""
    for (const piece of pieces) {
      const line = piece.replace(/\r+$/, "").slice(0, LONGEST_LINE)
      this.#lines.push(line)
      this.#characters += line.length + 1
    }
    if (this.#unfinished.length > LONGEST_LINE) {
      this.#lines.push(this.#unfinished.slice(0, LONGEST_LINE))
      this.#characters += LONGEST_LINE
      this.#unfinished = ""
    }
    if (this.#characters <= 2 * TAIL) return
    let drop = 0
    while (this.#characters > TAIL) this.#characters -= this.#lines[drop++].length + 1
    this.#lines = this.#lines.slice(drop)
    this.#dropped += drop
  }

  #wake(): void {
    for (const answer of this.#waiting) answer()
  }
}
