import { write } from "node:fs"
import { setTimeout } from "node:timers/promises"
import { escapeOutput, type Printable } from "./Printable.ts"

// The only way to stdout and stderr, without Effect: help does not load it (`help/answer.ts`). Others take Output.ts.

/** stdout refused bytes for another reason than a reader that went away. */
export class OutputError extends Error {
  readonly _tag = "OutputError"
  constructor(readonly code: string) {
    super(`cannot write to stdout: ${code}; is the disk full?`)
  }
}

const writeSome = (piece: Uint8Array, at: number): Promise<number> =>
  new Promise((resolve, reject) =>
    write(1, piece, at, piece.length - at, null, (error, written) => error === null ? resolve(written) : reject(error))
  )

/** Write the piece to stdout; false when the reader has gone away, or the signal came. Fails with an `OutputError` only. */
export const writeWhole = async (piece: Printable, signal?: AbortSignal): Promise<boolean> => {
  for (let at = 0; at < piece.length && signal?.aborted !== true;) {
    try {
      at += await writeSome(piece, at)
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : String(error)
      if (code === "EPIPE") return false
      if (code !== "EAGAIN") throw new OutputError(code)
      await setTimeout(1) // a pipe that somebody made non-blocking, and is full
    }
  }
  return signal?.aborted !== true
}

/** Write text, made printable, to stderr: messages, progress. */
export const writeMessage = (text: string): void => void process.stderr.write(escapeOutput(text))
