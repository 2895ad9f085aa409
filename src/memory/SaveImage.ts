import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises"
import { makeVmcore, type VmcoreCpu } from "./cores/Vmcore.ts"
import type { GuestMemory } from "./GuestMemory.ts"
import { type SparsePiece, sparsePieces } from "./SparsePieces.ts"

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

/**
 * Write a guest's memory as a raw image that `openMemoryImage` reads: byte n of the file is physical address n. Pages of zeros
 * and the gaps between regions become holes of the file, so it takes the room of what the guest has touched.
 *
 * @since 0.1.0
 * @category writing
 */
export const saveImage = (memory: GuestMemory, path: string): Effect.Effect<void, SaveError> =>
  save(path, rawPieces(memory)).pipe(Effect.withSpan("saveImage"))

/**
 * Write a guest's memory as an ELF core that `openMemoryImage`, crash and drgn read; see `makeVmcore`. Where memory holds
 * only zeros the file has holes.
 *
 * @since 0.1.0
 * @category writing
 */
export const saveVmcore = (
  memory: GuestMemory,
  path: string,
  cpus: ReadonlyArray<VmcoreCpu> = []
): Effect.Effect<void, SaveError> =>
  Effect.suspend(() => save(path, makeVmcore(memory, cpus).pieces)).pipe(Effect.withSpan("saveVmcore"))

function* rawPieces(memory: GuestMemory): Generator<SparsePiece> {
  let end = 0
  for (const region of memory.stretches()) {
    if (region.start > end) yield { zeros: region.start - end }
    yield* sparsePieces(region)
    end = region.start + region.bytes.length
  }
}

/** Into a new file beside `path`, which takes its place in the end. */
const save = (path: string, pieces: Iterable<SparsePiece>): Effect.Effect<void, SaveError> =>
  Effect.tryPromise({
    try: async (signal) => {
      const there = await stat(path).catch(() => undefined)
      if (there !== undefined && !there.isFile()) throw new Error("not a regular file")
      const part = `${path}.${process.pid}.part`
      try {
        const file = await open(part, "w")
        try {
          await writePieces(file, pieces, signal)
        } finally {
          await file.close()
        }
        signal.throwIfAborted()
        await rename(part, path)
      } catch (error) {
        await rm(part, { force: true })
        throw error
      }
    },
    catch: (error) => new SaveError({ path, why: error instanceof Error ? error.message : String(error) })
  })

const writePieces = async (file: FileHandle, pieces: Iterable<SparsePiece>, signal: AbortSignal): Promise<void> => {
  let at = 0
  for (const piece of pieces) {
    if (signal.aborted) return
    if (piece instanceof Uint8Array) {
      await writeAll(file, piece, at)
      at += piece.length
    } else at += piece.zeros
  }
  await file.truncate(at)
}

/** A disk that fills up takes a part. */
const writeAll = async (file: FileHandle, bytes: Uint8Array, at: number): Promise<void> => {
  for (let done = 0; done < bytes.length;) {
    done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten
  }
}
