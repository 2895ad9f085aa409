import { type PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { basename, join, resolve } from "node:path"

/** The cache cannot be found, read or written. */
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
 */
export const cacheRoot: Effect.Effect<string, CacheError> = Effect.gen(function*() {
  const own = Option.getOrElse(yield* variable("KTSTR_CACHE_DIR"), () => "")
  if (own !== "") return resolve(own)
  const shared = Option.getOrElse(yield* variable("XDG_CACHE_HOME"), () => "")
  if (shared !== "") return resolve(shared, "ktstr/kernels")
  const home = Option.getOrUndefined(yield* variable("HOME"))
  if (home) return resolve(home, ".cache/ktstr/kernels")
  const why = home === undefined ? "HOME is not set" : "HOME is set but empty"
  return yield* new CacheError({ path: "", why: `${why}, so there is no place for it` })
}).pipe(Effect.catchTag("ConfigError", (error) => new CacheError({ path: "", why: String(error) })))

/** The keys of the finished entries; none where the cache does not exist yet. Entry `key` is the directory `root/key`. */
export const cacheKeys = (root: string): Effect.Effect<ReadonlyArray<string>, CacheError, FileSystem.FileSystem> =>
  FileSystem.FileSystem.pipe(
    Effect.flatMap((fs) => fs.readDirectory(root)),
    Effect.map((names) => names.filter((name) => !name.startsWith("."))),
    Effect.catchTag("SystemError", (error) => error.reason === "NotFound" ? Effect.succeed([]) : Effect.fail(error)),
    Effect.mapError(refused(root))
  )

/**
 * Make entry `key` whole or not at all: `build` fills a temporary directory inside the cache, which is then renamed into
 * place. If another process was first and its entry is `usable`, that one is kept; an unusable one is replaced.
 * Directories that dead processes left are removed first. A failure or interruption leaves nothing.
 * @returns the entry's absolute path
 */
export const storeEntry = Effect.fn("CacheDir.storeEntry")(
  function*<E, R>(
    root: string,
    key: string,
    build: (directory: string) => Effect.Effect<void, E, R>,
    usable: (directory: string) => Effect.Effect<boolean, never, R>
  ): Effect.fn.Return<string, E | CacheError, R | FileSystem.FileSystem | Scope.Scope> {
    const fs = yield* FileSystem.FileSystem
    yield* Effect.mapError(fs.makeDirectory(root, { recursive: true }), refused(root))
    const namespace = yield* pidNamespace
    yield* removeLeftovers(root, namespace)
    const remove = (path: string) => Effect.ignore(fs.remove(path, { recursive: true, force: true }))
    const temporary = yield* Effect.acquireRelease(
      Effect.gen(function*() {
        const path = join(root, `.tmp-${namespace}-${process.pid}-${randomUUID()}`)
        yield* Effect.mapError(fs.makeDirectory(path), refused(root))
        return path
      }),
      remove
    )
    const built = join(temporary, "entry")
    yield* Effect.mapError(fs.makeDirectory(built), refused(root))
    yield* build(built)
    const entry = join(root, key)
    // a directory cannot be renamed onto one that holds files, so of two processes one loses
    const won = yield* Effect.isSuccess(fs.rename(built, entry))
    if (!won && !(yield* usable(entry))) {
      yield* Effect.ignore(fs.rename(entry, join(temporary, "unusable")))
      yield* Effect.mapError(fs.rename(built, entry), refused(entry))
    }
    return entry
  },
  Effect.scoped
)

/** Which PID namespace this process is in: a process id says nothing about the processes of another one. */
const pidNamespace: Effect.Effect<string, never, FileSystem.FileSystem> = FileSystem.FileSystem.pipe(
  Effect.flatMap((fs) => fs.readLink("/proc/self/ns/pid")),
  Effect.map((link) => /\d+/.exec(link)?.[0] ?? "0"),
  Effect.orElseSucceed(() => "0")
)

/** A temporary directory of a PID namespace other than ours is taken for left behind after a day. */
const FOREIGN_AGE_MILLIS = 24 * 3600 * 1000

const removeLeftovers = (root: string, ourNamespace: string): Effect.Effect<void, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    for (const name of yield* fs.readDirectory(root)) {
      const parts = /^\.tmp-(\d+)-(\d+)-/.exec(name)
      if (parts === null) continue
      const path = join(root, name)
      const ours = parts[1] === ourNamespace
      const left = ours ? !(yield* fs.exists(`/proc/${parts[2]}`)) : yield* olderThan(path, FOREIGN_AGE_MILLIS)
      if (left) {
        yield* Effect.logDebug(`removing ${basename(path)}, left by a process that has ended`)
        yield* fs.remove(path, { recursive: true, force: true })
      }
    }
  }).pipe(Effect.ignore)

const olderThan = (path: string, millis: number): Effect.Effect<boolean, PlatformError, FileSystem.FileSystem> =>
  FileSystem.FileSystem.pipe(
    Effect.flatMap((fs) => fs.stat(path)),
    Effect.map((info) => Option.exists(info.mtime, (time) => Date.now() - time.getTime() > millis))
  )

const refused = (path: string) => (error: PlatformError): CacheError =>
  new CacheError({ path, why: (error._tag === "SystemError" ? error.description : undefined) ?? error.message })
