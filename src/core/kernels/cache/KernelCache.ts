import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { join } from "node:path"
import { type CacheError, LOCK_WAIT, makeDirectories, refused, temporaryDirectory } from "../../CacheDir.ts"
import { type LockTimeout, withLock } from "../../EntryLock.ts"
import { platformText, reasonOf, type SyscallError } from "../../Errors.ts"
import { Native } from "../../Native.ts"
import { cacheKey } from "./CacheKey.ts"
import { type KernelFile, KernelMetadata, type KernelSource } from "./KernelMetadata.ts"

/**
 * The kinds of damage to an entry:
 * - `missing`: it holds no `metadata.json`
 * - `unreadable`: its `metadata.json` is not a file, or cannot be read
 * - `parse_error`: that is not text: not UTF-8, or far too long
 * - `truncated`: that is JSON which ends before its closing brace
 * - `malformed`: that is not JSON for another reason
 * - `schema_drift`: that is JSON of another shape, or of another version of `KernelMetadata`
 * - `image_missing`: a file that it names is gone, or of another size (`verifyEntry`: of other content)
 * - `unknown`: a file that it names cannot be looked at
 *
 * @since 0.1.0
 * @category models
 */
export type CorruptKind =
  | "missing"
  | "unreadable"
  | "parse_error"
  | "truncated"
  | "malformed"
  | "schema_drift"
  | "image_missing"
  | "unknown"

/**
 * An entry whose files are there in the sizes that its metadata say; the names in them are relative to `directory`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ValidEntry {
  readonly _tag: "Valid"
  readonly key: string
  readonly directory: string
  readonly metadata: KernelMetadata
}

/**
 * An entry that serves nobody; `why` is one line.
 *
 * @since 0.1.0
 * @category models
 */
export interface CorruptEntry {
  readonly _tag: "Corrupt"
  readonly key: string
  readonly directory: string
  readonly kind: CorruptKind
  /** Whether its metadata is ours, if only of another version: nobody else writes a `format` and a `source` with a kind. */
  readonly hasOurMetadata: boolean
  readonly why: string
}

/**
 * A kernel in the cache: the directory `<root>/<key>`.
 *
 * @since 0.1.0
 * @category models
 */
export type CacheEntry = ValidEntry | CorruptEntry

/**
 * A kernel as its source put it into a directory: the names of its files there, and where they came from.
 *
 * @since 0.1.0
 * @category models
 */
export interface KernelContents {
  readonly source: KernelSource
  readonly release: string
  /** `x86_64` */
  readonly arch?: KernelMetadata["arch"]
  readonly image: string
  readonly vmlinux: string | null
  readonly unpacked?: string | null
  readonly config: string | null
  readonly modules?: string | null
  readonly kconfigHash: string | null
  readonly extraKconfigHash: string | null
}

const METADATA = "metadata.json"
/** Ours have less than 2 KiB. */
const MAX_METADATA = 64 * 1024

type Fault = Pick<CorruptEntry, "kind" | "why" | "hasOurMetadata">
const fault = (kind: CorruptKind, why: string): Fault => ({
  kind,
  why,
  // these two are found when the metadata has been read
  hasOurMetadata: kind === "image_missing" || kind === "unknown"
})

const Ours = Schema.Struct({ format: Schema.Int, source: Schema.Struct({ kind: Schema.NonEmptyString }) })

/**
 * Entry `key`, with whatever is wrong with it; none if the directory does not exist. The files' content is not read.
 *
 * @since 0.1.0
 * @category reading
 */
export const readEntry = (
  root: string,
  key: string
): Effect.Effect<Option.Option<CacheEntry>, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    if (key.startsWith(".") || /^$|[/\0]/.test(key)) return Option.none()
    const fs = yield* FileSystem.FileSystem
    const directory = join(root, key)
    const identity = Effect.map(Effect.option(fs.stat(directory)), (found) =>
      Option.flatMap(found, (info) => info.type === "Directory" ? info.ino : Option.none()))
    const before = yield* identity
    if (Option.isNone(before)) {
      return Option.none()
    }
    const metadata = yield* Effect.either(readMetadata(directory))
    const after = yield* identity
    // another process has replaced the entry meanwhile, so what was read is a mixture
    if (!Option.contains(after, before.value)) {
      return yield* readEntry(root, key)
    }
    return Option.some(
      Either.match(metadata, {
        onLeft: (fault): CacheEntry => ({ _tag: "Corrupt", key, directory, ...fault }),
        onRight: (metadata): CacheEntry => ({ _tag: "Valid", key, directory, metadata })
      })
    )
  })

const readMetadata = (directory: string): Effect.Effect<KernelMetadata, Fault, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const file = join(directory, METADATA)
    const unreadable = (error: PlatformError) =>
      isAbsent(error) ? fault("missing", `it holds no ${METADATA}`) : fault("unreadable", reason(error))
    const { size, type } = yield* Effect.mapError(fs.stat(file), unreadable)
    if (type !== "File") return yield* Effect.fail(fault("unreadable", `${METADATA} is not a file`))
    if (size > MAX_METADATA) {
      return yield* Effect.fail(fault("parse_error", `${METADATA} has ${size} bytes, more than ${MAX_METADATA}`))
    }
    const metadata = yield* parseMetadata(yield* Effect.mapError(fs.readFile(file), unreadable))
    for (const { bytes, name } of filesOf(metadata)) {
      const { size, type } = yield* Effect.mapError(
        fs.stat(join(directory, name)),
        (error) => isAbsent(error) ? fault("image_missing", `${name} is gone`) : fault("unknown", reason(error))
      )
      if (type !== "File") return yield* Effect.fail(fault("image_missing", `${name} is not a file`))
      if (bytes !== undefined && size !== FileSystem.Size(bytes)) {
        return yield* Effect.fail(
          fault("image_missing", `${name} has ${size} bytes, not the ${bytes} that were stored`)
        )
      }
    }
    if (metadata.modules !== null) {
      const modules = yield* Effect.option(fs.stat(join(directory, metadata.modules)))
      if (!Option.exists(modules, ({ type }) => type === "Directory")) {
        return yield* Effect.fail(fault("image_missing", `${metadata.modules} is gone`))
      }
    }
    return metadata
  })

const filesOf = (metadata: KernelMetadata): ReadonlyArray<{ name: string; bytes?: number }> => [
  ...kernelFiles(metadata),
  ...(metadata.config === null ? [] : [{ name: metadata.config }])
]

/** The files of an entry that are a kernel each. */
export const kernelFiles = ({
  image,
  unpacked,
  vmlinux
}: KernelMetadata): ReadonlyArray<KernelFile> => [image, vmlinux, unpacked ?? null].filter((file) => file !== null)

const parseMetadata = (bytes: Uint8Array): Either.Either<KernelMetadata, Fault> =>
  Either.gen(function*() {
    const text = yield* Either.try({
      try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
      catch: () => fault("parse_error", `${METADATA} is not UTF-8`)
    })
    const json = yield* Either.try({
      try: (): unknown => JSON.parse(text),
      catch: (error) =>
        isCutOff(text)
          ? fault("truncated", `${METADATA} ends before its closing brace`)
          : fault("malformed", `${METADATA} is not JSON: ${error instanceof Error ? oneLine(error.message) : ""}`)
    })
    return yield* Either.mapLeft(Schema.decodeUnknownEither(KernelMetadata)(json), (error) => {
      const first = ParseResult.ArrayFormatter.formatErrorSync(error).at(0)
      const where = first === undefined || first.path.length === 0 ? "" : ` at ${first.path.join(".")}`
      const why = `${METADATA} is of another format${where}: ${oneLine(first?.message ?? "")}`
      return { ...fault("schema_drift", why), hasOurMetadata: Schema.is(Ours)(json) }
    })
  })

/** Whether more braces and brackets open than close, strings aside; so of each start of a JSON object that is not all. */
const isCutOff = (json: string): boolean => {
  const bare = json.replaceAll(/"(?:[^"\\]|\\.)*"?/gs, "")
  return bare.trim() === "" || bare.split(/[[{]/).length > bare.split(/[\]}]/).length
}

const oneLine = (text: string): string => text.replaceAll(/\p{C}+/gu, " ").slice(0, 200)

const isAbsent = (error: PlatformError): boolean => reasonOf(error) === "NotFound"
const reason = (error: PlatformError): string => oneLine(platformText(error))

/**
 * All entries, whatever state they are in: valid ones first, those last stored first, then by key. None where the cache
 * does not exist yet. Names that start with a dot, and files, are not entries.
 *
 * @since 0.1.0
 * @category reading
 */
export const listEntries = (
  root: string
): Effect.Effect<ReadonlyArray<CacheEntry>, CacheError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const names = yield* fs.readDirectory(root).pipe(
      Effect.catchIf(isAbsent, () => Effect.succeed([])),
      Effect.mapError(refused(root))
    )
    const entries = yield* Effect.forEach(names, (name) => readEntry(root, name))
    const storedAt = (entry: CacheEntry) => entry._tag === "Valid" ? entry.metadata.storedAt : ""
    return entries.flatMap(Option.toArray).toSorted((a, b) =>
      compare(storedAt(b), storedAt(a)) || compare(a.key, b.key)
    )
  })

const compare = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0

/**
 * `readEntry` that reads the kernel's files too: `image_missing` where their content is not what was stored.
 *
 * @since 0.1.0
 * @category reading
 */
export const verifyEntry = (
  root: string,
  key: string
): Effect.Effect<Option.Option<CacheEntry>, CacheError | LockTimeout, FileSystem.FileSystem | Native> => {
  const verified = Effect.gen(function*() {
    const found = yield* readEntry(root, key)
    if (Option.isNone(found) || found.value._tag === "Corrupt") return found
    const { directory, metadata } = found.value
    for (const file of kernelFiles(metadata)) {
      const { sha256 } = yield* describeFile(directory, file.name)
      if (sha256 !== file.sha256) {
        const why = `${file.name} does not have the content that was stored`
        return Option.some<CacheEntry>({
          _tag: "Corrupt",
          key,
          directory,
          kind: "image_missing",
          why,
          hasOurMetadata: true
        })
      }
    }
    return found
  })
  return Effect.flatMap(
    readEntry(root, key),
    (found) => Option.isNone(found) ? Effect.succeed(found) : lockEntry(root, key, "shared", LOCK_WAIT)(verified)
  )
}

const describeFile = (
  directory: string,
  name: string
): Effect.Effect<KernelFile, PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const hash = createHash("sha256")
    let bytes = 0
    yield* Stream.runForEach(fs.stream(join(directory, name), { chunkSize: 2 ** 20 }), (chunk) =>
      Effect.sync(() => {
        hash.update(chunk)
        bytes += chunk.length
      }))
    return { name, bytes, sha256: hash.digest("hex") }
  })

/** Wait until a file or a directory is on the disk. */
const sync = (path: string): Effect.Effect<void, PlatformError, FileSystem.FileSystem> =>
  Effect.scoped(Effect.flatMap(FileSystem.FileSystem, (fs) => Effect.flatMap(fs.open(path), (file) => file.sync)))

/**
 * Make entry `key` whole or not at all: `fill` puts a kernel's files into a directory inside the cache and says what they
 * are; sizes and hashes are computed, all is written to the disk, `metadata.json` last, and under the entry's lock the
 * directory takes the entry's place in one step. A process that is killed anywhere in this, a failure, an interruption
 * and another store of the same key leave the old entry or the new one.
 * @param key one that `cacheKey` accepts
 * @param options.replace false: where the entry has become valid meanwhile, keep that one
 * @since 0.1.0
 * @category writing
 */
export const storeKernel = Effect.fn("KernelCache.storeKernel")(
  function*<E, R>(
    root: string,
    key: string,
    fill: (directory: string) => Effect.Effect<KernelContents, E, R>,
    options: { readonly replace: boolean }
  ): Effect.fn.Return<
    ValidEntry,
    E | CacheError | LockTimeout,
    R | FileSystem.FileSystem | Native | Scope.Scope
  > {
    yield* Effect.orDie(cacheKey(key))
    const temporary = yield* temporaryDirectory(root)
    const fs = yield* FileSystem.FileSystem
    const made = join(temporary, "entry")
    const entry = join(root, key)
    yield* Effect.mapError(fs.makeDirectory(made), refused(made))
    const contents = yield* fill(made)
    const metadata = yield* Effect.mapError(seal(made, contents), refused(entry))

    const place = Effect.gen(function*() {
      const there = yield* readEntry(root, key)
      if (!options.replace && Option.isSome(there) && there.value._tag === "Valid") return there.value
      yield* putInPlace(made, entry)
      yield* sync(root)
      const stored: ValidEntry = { _tag: "Valid", key, directory: entry, metadata }
      return stored
    })
    return yield* lockEntry(root, key, "exclusive", LOCK_WAIT)(Effect.uninterruptible(place))
  },
  Effect.scoped
)

/** Complete a filled directory with its metadata; when this is done, all of it is on the disk. */
const seal = (
  directory: string,
  { image, unpacked, vmlinux, ...rest }: KernelContents
): Effect.Effect<KernelMetadata, PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const metadata = new KernelMetadata({
      ...rest,
      modules: rest.modules ?? null,
      format: 1,
      arch: rest.arch ?? "x86_64",
      image: yield* describeFile(directory, image),
      vmlinux: vmlinux === null ? null : yield* describeFile(directory, vmlinux),
      unpacked: unpacked === undefined || unpacked === null ? null : yield* describeFile(directory, unpacked),
      storedAt: new Date(yield* Clock.currentTimeMillis).toISOString()
    })
    for (const { name } of filesOf(metadata)) yield* sync(join(directory, name))
    const json = yield* Effect.orDie(Schema.encode(Schema.parseJson(KernelMetadata, { space: 2 }))(metadata))
    yield* fs.writeFileString(join(directory, METADATA), `${json}\n`)
    yield* sync(join(directory, METADATA))
    yield* sync(directory)
    return metadata
  })

/** Work on an entry under its lock, whose file is outside of the entry because that comes and goes. */
export const lockEntry =
  (root: string, key: string, mode: "shared" | "exclusive", wait: Duration.DurationInput) =>
  <A, R>(
    work: Effect.Effect<A, LockTimeout | PlatformError | SyscallError, R>
  ): Effect.Effect<A, CacheError | LockTimeout, R | FileSystem.FileSystem | Native> =>
    makeDirectories(join(root, ".locks")).pipe(
      Effect.zipRight(withLock(join(root, ".locks", `${key}.lock`), mode, wait)(work)),
      Effect.mapError((error) => error._tag === "LockTimeout" ? error : refused(join(root, key))(error))
    )

/**
 * Errors of renameat2(2) on file systems that cannot exchange (NFS, FUSE) or move a directory of a lower layer
 * (overlay).
 */
const CANNOT_MOVE = ["EINVAL", "ENOSYS", "EXDEV"]

const putInPlace = (
  made: string,
  entry: string
): Effect.Effect<void, PlatformError | SyscallError, FileSystem.FileSystem | Native> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const native = yield* Native
    const exchanged = yield* Effect.either(native.exchange(made, entry))
    if (Either.isRight(exchanged)) return
    const { code } = exchanged.left
    if (CANNOT_MOVE.includes(code)) yield* removeInPlace(entry)
    else if (code !== "ENOENT") return yield* exchanged.left
    yield* fs.rename(made, entry)
  })

/** Metadata first: what is left if this is interrupted is not a valid entry. A link is removed, not its target. */
export const removeInPlace = (entry: string): Effect.Effect<void, PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const isLink = yield* Effect.isSuccess(fs.readLink(entry))
    if (!isLink) yield* fs.remove(join(entry, METADATA), { recursive: true, force: true })
    yield* fs.remove(entry, { recursive: true, force: true })
  })
