import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/** A file cannot be written. */
export class FileUnwritable extends Schema.TaggedError<FileUnwritable>("ktstr/FileUnwritable")("FileUnwritable", {
  path: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `cannot write ${this.path}: ${this.why}; give a path that can be written, on a disk with room`
  }
}

/**
 * Write borrowed pieces to a file, each before the next is asked for: whole, or not at all. It is written beside its place
 * and takes it in the end; what was there before stays until then.
 */
export const writeFile = (
  path: string,
  pieces: Iterable<Uint8Array>
): Effect.Effect<void, FileUnwritable, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const put = (place: string, flag: "w" | "a") =>
      Effect.scoped(Effect.gen(function*() {
        const file = yield* files.open(place, { flag })
        for (const piece of pieces) yield* file.writeAll(piece)
      }))
    const there = yield* Effect.option(files.stat(path))
    // A device or a pipe is not to be replaced; and it has no positions, which writing wants when it does not append.
    if (Option.isSome(there) && there.value.type !== "File") return yield* put(path, "a")
    const part = `${path}.part`
    yield* Effect.zipRight(put(part, "w"), files.rename(part, path)).pipe(
      Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Effect.ignore(files.remove(part, { force: true })))
    )
  }).pipe(Effect.mapError((error: PlatformError) =>
    new FileUnwritable({
      path,
      why: (error._tag === "SystemError" ? error.description?.replace(/, .*$/, "") : undefined) ?? error.message
    })
  ))
