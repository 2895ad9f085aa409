import * as Effect from "effect/Effect"
import { consoleBytes, type Printable, printable } from "./Printable.ts"
import { OutputError, writeWhole } from "./Streams.ts"

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
  writing((signal) => writeWhole(consoleBytes(piece), signal))

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
