import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

/** Memory limit of the finished lines that are kept, in characters and `LINE`; the oldest are dropped at twice that. */
const TAIL = 2 ** 20
/** Cost of a line in addition to its characters: a guest may send nothing but newlines. */
const LINE = 32
/** Bytes that stay in memory. */
const BYTES = 2 ** 20
/** A reader of bytes that is so far behind holds the guest up; what is on its way still fits. */
const HOLD = BYTES / 2
/** Bytes of the longest line: a longer one is cut in two, because a guest that never ends one must not fill our memory. */
const LONGEST_LINE = 2 ** 16
const [NEWLINE, RETURN] = [0x0a, 0x0d]

/** How far a stream of bytes has come, counted from the first byte ever. */
interface Reader {
  next: number
}

/**
 * The text of a guest's console. Bytes go in by `push`; lines and bytes come out as streams, each from the start however
 * late it is run. Only the newest 1 MiB is kept: a reader that comes later than that starts at the oldest still there.
 */
export class Console {
  /** Called when `full` may be over. */
  onRoom: () => void = () => {}
  readonly #waiting = new Set<() => void>()
  readonly #readers = new Set<Reader>()
  #ring = new Uint8Array(0)
  #pushed = 0
  /** Each a string of its own: a slice of what was pushed would keep all of that. */
  #lines: Array<string> = []
  #dropped = 0
  #cost = 0
  /** The line that has no end yet. */
  #unfinished = Buffer.alloc(0)
  #unfinishedBytes = 0
  #ended = false

  /** After `end` nothing is taken any more. */
  push(bytes: Uint8Array): void {
    if (this.#ended) return
    this.#keep(bytes)
    this.#append(bytes)
    this.#wake()
  }

  /** No more bytes will come; a last line without its newline counts as a line. */
  end(): void {
    if (this.#ended) return
    if (this.#unfinishedBytes > 0) {
      this.#finishLine()
      this.#dropOldest()
    }
    this.#ended = true
    this.#wake()
  }

  /** Whether a running stream of bytes is so far behind that it will miss some if much more is pushed now. */
  get full(): boolean {
    return !this.#ended && [...this.#readers].some(({ next }) => this.#pushed - next > HOLD)
  }

  /** Bytes ever pushed. */
  get pushed(): number {
    return this.#pushed
  }

  /** The newest line that is not blank, finished or not. */
  get lastLine(): string | undefined {
    return this.tail.findLast((line) => line.trim() !== "")?.trim()
  }

  /** The lines still kept, oldest first. */
  get tail(): ReadonlyArray<string> {
    return this.#unfinishedBytes === 0 ? this.#lines.slice() : [...this.#lines, this.#decode()]
  }

  /** Every line without its line end, from the start; ends when the VM has ended. */
  readonly lines: Stream.Stream<string> = this.linesFrom(0)

  /** How many lines there were ever; the next is of that number. */
  get count(): number {
    return this.#dropped + this.#lines.length
  }

  /** The lines from number `first` on, as far as they are kept; ends when the VM has ended. */
  linesFrom(first: number): Stream.Stream<string> {
    return Stream.paginateChunkEffect(
      first,
      (next: number) =>
        Effect.map(
          this.#linesFrom(next),
          ([lines, after]) => [Chunk.unsafeFromArray(lines), lines.length === 0 ? Option.none() : Option.some(after)]
        )
    )
  }

  /** Every byte as it comes, from the start; ends when the VM has ended. Pieces are the reader's own. */
  readonly bytes: Stream.Stream<Uint8Array> = Stream.unwrapScoped(
    Effect.map(
      Effect.acquireRelease(
        Effect.sync((): Reader => {
          const reader = { next: Math.max(0, this.#pushed - this.#ring.length) }
          this.#readers.add(reader)
          return reader
        }),
        (reader) =>
          Effect.sync(() => {
            this.#readers.delete(reader)
            this.onRoom()
          })
      ),
      (reader) =>
        Stream.repeatEffectOption(
          Effect.flatMap(this.#bytesFor(reader), (bytes) =>
            bytes.length === 0 ? Effect.fail(Option.none()) : Effect.succeed(bytes))
        )
    )
  )

  /** At least one line numbered `next` or later, and the number after the last; none when the console has ended. */
  #linesFrom(next: number): Effect.Effect<readonly [ReadonlyArray<string>, number]> {
    return this.#once(
      () => next < this.#dropped + this.#lines.length,
      () => [this.#lines.slice(Math.max(0, next - this.#dropped)), this.#dropped + this.#lines.length]
    )
  }

  /** The bytes that the reader has not had, at least one; none when the console has ended. */
  #bytesFor(reader: Reader): Effect.Effect<Uint8Array> {
    return this.#once(() => reader.next < this.#pushed, () => {
      const size = this.#ring.length
      const count = Math.min(this.#pushed - reader.next, size)
      const bytes = new Uint8Array(count)
      const start = (this.#pushed - count) % Math.max(1, size)
      const first = Math.min(count, size - start)
      bytes.set(this.#ring.subarray(start, start + first))
      bytes.set(this.#ring.subarray(0, count - first), first)
      reader.next = this.#pushed
      this.onRoom()
      return bytes
    })
  }

  /** `take`s when there is something, or the console has ended. */
  #once<A>(there: () => boolean, take: () => A): Effect.Effect<A> {
    return Effect.async((resume) => {
      const answer = () => {
        if (!there() && !this.#ended) return
        this.#waiting.delete(answer)
        resume(Effect.succeed(take()))
      }
      this.#waiting.add(answer)
      answer()
      return Effect.sync(() => this.#waiting.delete(answer))
    })
  }

  #keep(bytes: Uint8Array): void {
    if (this.#ring.length === 0) this.#ring = new Uint8Array(BYTES)
    const kept = bytes.subarray(-BYTES)
    const start = (this.#pushed + bytes.length - kept.length) % BYTES
    const first = Math.min(kept.length, BYTES - start)
    this.#ring.set(kept.subarray(0, first), start)
    this.#ring.set(kept.subarray(first), 0)
    this.#pushed += bytes.length
  }

  #append(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const newline = bytes.indexOf(NEWLINE, at)
      const end = newline < 0 ? bytes.length : newline
      while (at < end) at += this.#addToLine(bytes.subarray(at, end))
      if (newline < 0) break
      this.#finishLine()
      at = newline + 1
    }
    this.#dropOldest()
  }

  #dropOldest(): void {
    if (this.#cost <= 2 * TAIL) return
    let drop = 0
    while (this.#cost > TAIL) this.#cost -= this.#lines[drop++].length + LINE
    this.#lines = this.#lines.slice(drop)
    this.#dropped += drop
  }

  /** Add to the line without an end as much as it takes; how many bytes that is. */
  #addToLine(bytes: Uint8Array): number {
    if (this.#unfinishedBytes === LONGEST_LINE) this.#finishLine()
    const count = Math.min(bytes.length, LONGEST_LINE - this.#unfinishedBytes)
    const needed = this.#unfinishedBytes + count
    if (needed > this.#unfinished.length) {
      const larger = Buffer.alloc(Math.min(LONGEST_LINE, Math.max(256, 2 * needed)))
      larger.set(this.#unfinished.subarray(0, this.#unfinishedBytes))
      this.#unfinished = larger
    }
    this.#unfinished.set(bytes.subarray(0, count), this.#unfinishedBytes)
    this.#unfinishedBytes = needed
    return count
  }

  #finishLine(): void {
    const line = this.#decode()
    this.#unfinishedBytes = 0
    this.#lines.push(line)
    this.#cost += line.length + LINE
  }

  /** The line without an end as text, without the carriage returns at its end. */
  #decode(): string {
    let length = this.#unfinishedBytes
    while (length > 0 && this.#unfinished[length - 1] === RETURN) length--
    return this.#unfinished.toString("utf8", 0, length)
  }

  #wake(): void {
    for (const answer of this.#waiting) answer()
  }
}
