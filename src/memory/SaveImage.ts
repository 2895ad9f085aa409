import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { open } from "node:fs/promises"
import { type GuestMemory, writtenParts } from "./GuestMemory.ts"

/**
 * The image could not be written.
 *
 * @since 0.1.0
 * @category errors
 */
export class SaveError extends Schema.TaggedError<SaveError>("ktstr/SaveError")("SaveError", {
  path: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `cannot save the memory image ${this.path}: ${this.why}`
  }
}

const PIECE = 2 ** 16

/**
 * Write a guest's memory as a raw image that `openMemoryImage` reads: byte n of the file is physical address n. Pages of zeros
 * and the gaps between regions become holes of the file, so it takes the room of what the guest has touched.
 *
 * @since 0.1.0
 * @category writing
 */
export const saveImage = (memory: GuestMemory, path: string): Effect.Effect<void, SaveError> =>
  Effect.tryPromise({
    try: async (signal) => {
      const file = await open(path, "w")
      try {
        await file.truncate(memory.end)
        for (const region of memory.regions) {
          for (const [from, to] of writtenParts(region)) {
            for (let at = from; at < to && !signal.aborted; at += PIECE) {
              const piece = region.bytes.subarray(at, Math.min(at + PIECE, to))
              if (!isZero(piece)) await file.write(piece, 0, piece.length, region.start + at)
            }
          }
        }
      } finally {
        await file.close()
      }
    },
    catch: (error) => new SaveError({ path, why: error instanceof Error ? error.message : String(error) })
  }).pipe(Effect.withSpan("saveImage"))

const zeros = Buffer.alloc(PIECE)

const isZero = (piece: Uint8Array): boolean => zeros.compare(piece, 0, piece.length, 0, piece.length) === 0
