import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { constants, openSync } from "node:fs"
import { Socket } from "node:net"
import { whyOf } from "../Errors.ts"

/** A text of more bytes may not fit into one string. */
const LIMIT = 2 ** 29 - 24
const TOO_LARGE = "it is larger than 512 MiB"

/**
 * The text of a file from outside, or of a pipe up to its end; fails with why it cannot be read. A device is refused, since
 * it may never end.
 */
export const readForeignText = (path: string): Effect.Effect<string, string, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const { size, type } = yield* Effect.mapError(files.stat(path), whyOf)
    if (type === "CharacterDevice" || type === "BlockDevice") {
      return yield* Effect.fail("it is a device and not a file")
    }
    if (size > LIMIT) return yield* Effect.fail(TOO_LARGE)
    return yield* type === "FIFO" ? textOfPipe(path) : Effect.mapError(files.readFileString(path), whyOf)
  })

/**
 * Whether a file starts as JSON does, and is not an image of memory. A pipe is taken for JSON unread: it cannot be mapped,
 * and what was read of it is gone.
 */
export const startsAsJson = (path: string): Effect.Effect<boolean, string, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    if ((yield* files.stat(path)).type === "FIFO") return true
    const start = Buffer.alloc(64)
    const read = yield* Effect.scoped(Effect.flatMap(files.open(path), (file) => file.read(start)))
    return /^\s*\{/.test(start.toString("latin1", 0, Number(read)))
  }).pipe(Effect.mapError(whyOf))

/**
 * The event loop waits for a pipe, not a thread of Node's pool: a thread that waits for a writer that never comes would
 * keep even process.exit from ending the process.
 */
const textOfPipe = (path: string): Effect.Effect<string, string> =>
  Effect.async((resume) => {
    const failed = (error: unknown) => resume(Effect.fail(error instanceof Error ? error.message : String(error)))
    let socket: Socket
    try {
      const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
      socket = new Socket({ fd, readable: true, writable: false })
    } catch (error) {
      failed(error)
      return
    }
    const pieces: Array<Buffer> = []
    let bytes = 0
    socket.on("data", (piece: Buffer) => {
      pieces.push(piece)
      bytes += piece.length
      if (bytes > LIMIT) socket.destroy(new Error(TOO_LARGE))
    })
    socket.on("end", () => resume(Effect.succeed(Buffer.concat(pieces).toString("utf8"))))
    socket.on("error", failed)
    return Effect.sync(() => socket.destroy())
  })
