import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { randomUUID } from "node:crypto"
import { closeSync, constants, openSync } from "node:fs"
import { dirname, join } from "node:path"
import { isatty } from "node:tty"
import { SyscallError, whyOf } from "../../core/Errors.ts"
import { Native } from "../../core/Native.ts"
import type { SparsePiece } from "../../memory/SparsePieces.ts"
import type { Printable } from "../terminal/Printable.ts"
import { holding, holdSignals } from "../terminal/signals.ts"

/** A file cannot be written. */
export class FileUnwritable extends Schema.TaggedError<FileUnwritable>("ktstr/FileUnwritable")("FileUnwritable", {
  path: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `cannot write ${this.path}: ${this.why}; give a writable path on a disk with free space`
  }
}

const ZEROS = new Uint8Array(2 ** 16)

/** @param positions whether the file has them, and so can have holes */
const putPieces = (file: FileSystem.File, pieces: Iterable<SparsePiece>, positions: boolean) =>
  Effect.gen(function*() {
    let end = 0
    for (const piece of pieces) {
      if (piece instanceof Uint8Array) yield* file.writeAll(piece)
      else if (positions) yield* file.seek(piece.zeros, "current")
      else {
        for (let left = piece.zeros; left > 0; left -= ZEROS.length) {
          yield* file.writeAll(ZEROS.subarray(0, Math.min(left, ZEROS.length)))
        }
      }
      end += piece instanceof Uint8Array ? piece.length : piece.zeros
    }
    if (positions) yield* file.truncate(end)
  })

/** include/uapi/asm-generic/fcntl.h: with O_DIRECTORY in it; a file system that cannot do it refuses. */
const O_TMPFILE = 0o20200000

/** Names of our own descriptors: links, of which the target is meant. */
const DESCRIPTOR = /^(\/dev\/(stdout|stderr|fd\/\d+)|\/proc\/(self|\d+)\/fd\/\d+)$/

/** A terminal would take it for its commands. */
const onTerminal = (path: string): boolean => {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NOCTTY | constants.O_NONBLOCK)
  try {
    return isatty(fd)
  } finally {
    closeSync(fd)
  }
}

/** As `writeFile`, for what is not text: a terminal is not written to, and in a file zeros are holes. */
export const writeBinary = (
  path: string,
  pieces: Iterable<SparsePiece>
): Effect.Effect<void, FileUnwritable, FileSystem.FileSystem | Native> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const there = yield* Effect.option(files.stat(path))
    if (Option.isSome(there) && there.value.type === "CharacterDevice" && onTerminal(path)) {
      return yield* new FileUnwritable({ path, why: "it is a terminal, and this is not text" })
    }
    yield* write(path, pieces)
  })

/**
 * Write borrowed pieces to a file, each before the next is asked for: whole, or not at all. They go to a new file beside
 * it, which takes its place and its mode in the end. Until then the new file has no name; on a file system without
 * O_TMPFILE it has a random one. A link is replaced, not followed; a device, a pipe and a descriptor (`/dev/stdout`) are
 * written to.
 */
export const writeFile = (
  path: string,
  pieces: Iterable<Printable>
): Effect.Effect<void, FileUnwritable, FileSystem.FileSystem | Native> => write(path, pieces)

/** The error that would keep `write` from beginning, before work that takes long. Nothing is left behind. */
export const checkWritable = (
  path: string
): Effect.Effect<void, FileUnwritable, FileSystem.FileSystem | Native> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const there = Option.getOrUndefined(yield* Effect.option(files.stat(path)))
    if (there !== undefined && there.type !== "File" || DESCRIPTOR.test(path)) {
      // opening a pipe would wait for its reader
      return yield* there?.type === "Directory"
        ? Effect.asVoid(files.open(path, { flag: "a" }))
        : files.access(path, { writable: true })
    }
    const native = yield* Native
    const nameless = yield* Effect.option(native.open(dirname(path), O_TMPFILE | constants.O_RDWR))
    if (Option.isSome(nameless)) return
    yield* holdSignals
    const part = partBeside(path)
    yield* Effect.zipRight(files.writeFile(part, new Uint8Array(), { flag: "wx" }), files.remove(part))
  }).pipe(Effect.scoped, Effect.mapError((error) => new FileUnwritable({ path, why: reasonOf(error) })))

const partBeside = (path: string): string => join(dirname(path), `.ktstr-${randomUUID()}.part`)

const reasonOf = (error: PlatformError | SyscallError): string =>
  error instanceof SyscallError ? error.message : whyOf(error)

const write = (
  path: string,
  pieces: Iterable<SparsePiece>
): Effect.Effect<void, FileUnwritable, FileSystem.FileSystem | Native> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const put = (place: string, options: FileSystem.OpenFileOptions) =>
      Effect.scoped(Effect.flatMap(files.open(place, options), (file) => putPieces(file, pieces, options.flag !== "a")))
    const there = Option.getOrUndefined(yield* Effect.option(files.stat(path)))
    // Such a file has no positions, which writing needs unless it appends.
    if (there !== undefined && there.type !== "File" || DESCRIPTOR.test(path)) return yield* put(path, { flag: "a" })
    const native = yield* Native
    const part = partBeside(path)
    const mode = there === undefined ? 0o666 : there.mode & 0o777
    const removingPart = <A, E, R>(work: Effect.Effect<A, E, R>) =>
      Effect.onExit(
        work,
        (exit) => Exit.isSuccess(exit) ? Effect.void : Effect.ignore(files.remove(part, { force: true }))
      )
    const replace = files.rename(part, path)
    // a file without a name goes with us whenever we end: no signal needs to be held
    const nameless = yield* Effect.option(native.open(dirname(path), O_TMPFILE | constants.O_RDWR, mode | 0o600))
    const place = Option.map(nameless, (fd) => `/proc/self/fd/${fd}`)
    if (Option.isSome(nameless) && Option.isSome(place) && (yield* files.exists(place.value))) {
      yield* put(place.value, { flag: "r+" })
      if (there !== undefined) yield* files.chmod(place.value, mode)
      return yield* holding(
        Effect.uninterruptible(Effect.zipRight(native.link(nameless.value, part), removingPart(replace)))
      )
    }
    yield* holdSignals
    yield* removingPart(Effect.zipRight(put(part, { flag: "wx", mode }), replace))
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) => new FileUnwritable({ path, why: reasonOf(error) }))
  )
