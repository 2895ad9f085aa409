import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { constants } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { type LockTimeout, withLock } from "./EntryLock.ts"
import { isPlatformError, platformText, reasonOf, type SyscallError } from "./Errors.ts"
import { Native } from "./Native.ts"

/**
 * The cache cannot be found, read or written.
 *
 * @since 0.1.0
 * @category errors
 */
export class CacheError extends Schema.TaggedError<CacheError>("ktstr/CacheError")("CacheError", {
  path: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `kernel cache${this.path === "" ? "" : ` ${this.path}`}: ${this.why}; ` +
      "set KTSTR_CACHE_DIR to a directory that you can write"
  }
}

const variable = (name: string): Effect.Effect<Option.Option<string>, ConfigError.ConfigError> =>
  Config.option(Config.string(name))

/**
 * Where the cache is, absolute: `KTSTR_CACHE_DIR` itself, else `$XDG_CACHE_HOME/ktstr/kernels`, else
 * `$HOME/.cache/ktstr/kernels`. An empty variable counts as absent. The directory need not exist.
 *
 * @since 0.1.0
 * @category reading
 */
export const cacheRoot: Effect.Effect<string, CacheError> = Effect.gen(function*() {
  const own = Option.getOrElse(yield* variable("KTSTR_CACHE_DIR"), () => "")
  if (own !== "") return resolve(own)
  const shared = Option.getOrElse(yield* variable("XDG_CACHE_HOME"), () => "")
  if (shared !== "") return resolve(shared, "ktstr/kernels")
  const home = Option.getOrUndefined(yield* variable("HOME"))
  if (home) return resolve(home, ".cache/ktstr/kernels")
  const why = home === undefined ? "HOME is not set" : "HOME is set but empty"
  return yield* new CacheError({ path: "", why: `${why}, so the cache has no directory` })
}).pipe(Effect.catchTag("ConfigError", (error) => new CacheError({ path: "", why: String(error) })))

/**
 * A temporary directory in the cache, removed with the scope. Directories left by dead processes are
 * removed first: a living process holds a lock on its own, in whatever PID namespace it is.
 * @param root the cache; it is made if it is not there
 */
export const temporaryDirectory = Effect.fn("CacheDir.temporaryDirectory")(
  function*(
    root: string
  ): Effect.fn.Return<string, CacheError | LockTimeout, FileSystem.FileSystem | Native | Scope.Scope> {
    const fs = yield* FileSystem.FileSystem
    const native = yield* Native
    const make = Effect.gen(function*() {
      yield* removeLeftovers(root)
      const path = yield* Effect.acquireRelease(
        Effect.sync(() => join(root, `${TEMPORARY}${randomUUID()}`)).pipe(Effect.tap((path) => fs.makeDirectory(path))),
        (path) => Effect.ignore(fs.remove(path, { recursive: true, force: true }))
      )
      yield* native.flock(yield* native.open(path, O_DIRECTORY), "exclusive")
      return path
    })
    yield* Effect.mapError(makeDirectories(root), refused(root))
    // so that nobody takes the directory for an abandoned one before it is locked
    return yield* withLock(root, "exclusive", LOCK_WAIT)(make).pipe(
      Effect.mapError((error) => error._tag === "LockTimeout" ? error : refused(root)(error))
    )
  }
)

/** How long to wait for a lock in the cache: longer than any step under one takes on a slow disk. */
export const LOCK_WAIT = "60 seconds"

const { O_DIRECTORY } = constants

const TEMPORARY = ".tmp-"
/** The names of our own directories: the cache may be a directory that holds other things. */
const OURS = /^\.tmp-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

const removeLeftovers = (root: string): Effect.Effect<void, PlatformError, FileSystem.FileSystem | Native> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const native = yield* Native
    for (const name of yield* fs.readDirectory(root)) {
      if (!OURS.test(name)) continue
      const path = join(root, name)
      yield* Effect.gen(function*() {
        const abandoned = yield* native.flock(yield* native.open(path, O_DIRECTORY), "exclusive")
        if (abandoned) yield* fs.remove(path, { recursive: true, force: true })
      }).pipe(
        Effect.scoped,
        Effect.catchAll((error) => Effect.logDebug(`cannot remove what a dead process left: ${error.message}`))
      )
    }
  })

/** `mkdir -p`. Node's own never ends in a directory such as /proc, where each name "does not exist" when it is made. */
export const makeDirectories = (path: string): Effect.Effect<void, PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const make = Effect.catchIf(
      fs.makeDirectory(path),
      (error) => reasonOf(error) === "AlreadyExists",
      () => Effect.void
    )
    yield* Effect.catchIf(
      make,
      (error) => reasonOf(error) === "NotFound" && dirname(path) !== path,
      () => Effect.zipRight(makeDirectories(dirname(path)), make)
    )
  })

/** A failure on `path` as a `CacheError`. */
export const refused = (path: string) => (error: PlatformError | SyscallError): CacheError =>
  new CacheError({ path, why: isPlatformError(error) ? platformText(error) : error.message })
