import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { write } from "node:fs"
import { setTimeout } from "node:timers/promises"
import { escapeOutput, type Printable, printable } from "./Printable.ts"

/** stdout refused bytes for another reason than a reader that went away. */
export class OutputError extends Schema.TaggedError<OutputError>("ktstr/OutputError")("OutputError", {
  code: Schema.String
}) {
  override get message() {
    return `cannot write to stdout: ${this.code}; is the disk full?`
  }
}

const writeSome = (piece: Uint8Array, at: number): Promise<number> =>
  new Promise((resolve, reject) =>
    write(1, piece, at, piece.length - at, null, (error, written) => error === null ? resolve(written) : reject(error))
  )

/** Writes the piece; false when the reader has gone away, or the signal came. Fails with an `OutputError` only. */
const writeWhole = async (piece: Uint8Array, signal: AbortSignal): Promise<boolean> => {
  for (let at = 0; at < piece.length && !signal.aborted;) {
    try {
      at += await writeSome(piece, at)
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : String(error)
      if (code === "EPIPE") return false
      if (code !== "EAGAIN") throw new OutputError({ code })
      await setTimeout(1) // a pipe that somebody made non-blocking, and is full
    }
  }
  return !signal.aborted
}

/** One write to stdout. A failure between two writes, where the pieces are made, is a bug and not stdout's fault. */
const writing = (write: (signal: AbortSignal) => Promise<boolean>): Effect.Effect<boolean, OutputError> =>
  Effect.tryPromise({ try: write, catch: (error) => error }).pipe(
    Effect.catchAll((error) => error instanceof OutputError ? Effect.fail(error) : Effect.die(error))
  )

/**
 * Write a guest's console to stdout as it is, since it is the terminal's to interpret; false when the reader has gone away,
 * which is not an error.
 */
export const writeConsole = (piece: Uint8Array): Effect.Effect<boolean, OutputError> =>
  writing((signal) => writeWhole(piece, signal))

/**
 * Write borrowed pieces to stdout, each before the next is asked for. A closed pipe (`| head`) ends the writing and is
 * not an error, but gives false; interruption ends it between two writes.
 */
export const writePieces = (pieces: Iterable<Printable>): Effect.Effect<boolean, OutputError> =>
  writing(async (signal) => {
    for (const piece of pieces) {
      if (!await writeWhole(piece, signal)) return false
    }
    return true
  })

/** Write text or JSON to stdout, made printable, as `writePieces` does. */
export const writeText = (text: string): Effect.Effect<void, OutputError> => Effect.asVoid(writeLive(text))

/** As `writeText`, of an output without an end: false once nobody reads it. */
export const writeLive = (text: string): Effect.Effect<boolean, OutputError> => writePieces([printable(text)])

const CLEAR = "\x1b[H\x1b[2J"

/** As `writeLive`; on a terminal in place of all that it shows. */
export const writeScreen = (text: string): Effect.Effect<boolean, OutputError> =>
  process.stdout.isTTY
    ? Effect.zipRight(writeConsole(new TextEncoder().encode(CLEAR)), writeLive(text))
    : writeLive(text)

/** Write text, made printable, to stderr: messages, progress. */
export const writeMessage = (text: string): void => void process.stderr.write(escapeOutput(text))
