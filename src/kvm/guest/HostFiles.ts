import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Stats } from "node:fs"
import { readdir, readFile, realpath, stat } from "node:fs/promises"
import { basename, join, resolve } from "node:path"

/**
 * A file that should go into the guest cannot be put there.
 *
 * @since 0.1.0
 * @category errors
 */
export class IncludeError extends Schema.TaggedError<IncludeError>("ktstr/IncludeError")("IncludeError", {
  path: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `cannot include ${this.path}: ${this.why}; ${this.hint}`
  }
}

/** A file of the host; `mode` is its permission bits. */
export interface HostFile {
  readonly path: string
  readonly mode: number
  readonly bytes: Uint8Array
}

/** A file, or a directory without its contents, at `name` below the include's own. */
export type Included = { readonly name: string; readonly mode: number; readonly file: HostFile | undefined }

/** Bytes of one file and of all files of an initramfs: it lies in the guest's memory twice while it is unpacked. */
export const INITRAMFS_LIMIT = 2 ** 30
/** Entries and directory levels of one include: `--include /` is an oversight. */
const ENTRY_LIMIT = 20_000
const DEPTH_LIMIT = 40

/** Read a regular file whole, through symbolic links. */
export const readHostFile = (path: string): Effect.Effect<HostFile, IncludeError> =>
  Effect.gen(function*() {
    const info = yield* statOf(path)
    if (!info.isFile()) {
      return yield* new IncludeError({ path, why: `it is ${kindOf(info)}`, hint: "give a regular file" })
    }
    if (info.size > INITRAMFS_LIMIT) {
      return yield* tooLarge(path)
    }
    const bytes = yield* tried(path, (signal) => readFile(path, { signal }))
    return { path, mode: info.mode & 0o777, bytes }
  })

/**
 * The file or the directory tree at `path`, each directory before what it holds and names in byte order. Symbolic links
 * are followed; a link back to a directory that holds it is refused, as are devices, sockets and pipes.
 */
export const readInclude = (path: string): Effect.Effect<ReadonlyArray<Included>, IncludeError> =>
  Effect.gen(function*() {
    const found: Array<Included> = []
    let total = 0
    const visit = (at: string, name: string, within: ReadonlyArray<string>): Effect.Effect<void, IncludeError> =>
      Effect.gen(function*() {
        const info = yield* statOf(at)
        if (found.length >= ENTRY_LIMIT || within.length > DEPTH_LIMIT) {
          const why = `it holds more than ${ENTRY_LIMIT} entries or ${DEPTH_LIMIT} levels`
          return yield* new IncludeError({ path, why, hint: "include only what the guest needs" })
        }
        if (!info.isDirectory()) {
          const file = yield* readHostFile(at)
          total += file.bytes.length
          if (total > INITRAMFS_LIMIT) return yield* tooLarge(path)
          return void found.push({ name, mode: file.mode, file })
        }
        const real = yield* tried(at, () => realpath(at))
        if (within.includes(real)) {
          return yield* new IncludeError({
            path: at,
            why: "it links to a directory that holds it",
            hint: "remove the link"
          })
        }
        found.push({ name, mode: info.mode & 0o777, file: undefined })
        const names = (yield* tried(at, () => readdir(at))).sort((a, b) => (a < b ? -1 : 1))
        yield* Effect.forEach(names, (each) => visit(join(at, each), `${name}/${each}`, [...within, real]), {
          discard: true
        })
      })
    yield* visit(path, basename(resolve(path)), [])
    return found
  })

const tooLarge = (path: string) =>
  new IncludeError({ path, why: "it is larger than 1 GiB", hint: "include only what the guest needs" })

const statOf = (path: string) => tried(path, () => stat(path))

const tried = <A>(path: string, run: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, IncludeError> =>
  Effect.tryPromise({
    try: run,
    catch: (error) => {
      const code = error instanceof Error && "code" in error ? String(error.code) : String(error)
      const [why, hint] = reasons[code] ?? [code, "give a file that can be read"]
      return new IncludeError({ path, why, hint })
    }
  })

const reasons: Readonly<Record<string, readonly [why: string, hint: string]>> = {
  ENOENT: ["no such file", "check the path"],
  ENOTDIR: ["no such file", "check the path"],
  EACCES: ["permission denied", "make it readable"],
  ELOOP: ["its symbolic links form a loop", "remove the link"]
}

const kindOf = (info: Stats): string =>
  info.isDirectory()
    ? "a directory"
    : info.isFIFO()
    ? "a pipe"
    : info.isSocket()
    ? "a socket"
    : "a device"
