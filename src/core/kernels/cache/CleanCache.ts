import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { join } from "node:path"
import { type CacheError, refused, temporaryDirectory } from "../../CacheDir.ts"
import type { LockTimeout } from "../../EntryLock.ts"
import type { Native } from "../../Native.ts"
import { type CacheEntry, listEntries, lockEntry, readEntry, removeInPlace } from "./KernelCache.ts"

/**
 * The result of `cleanCache`, entry by entry.
 *
 * @since 0.1.0
 * @category models
 */
export interface Cleaned {
  readonly removed: ReadonlyArray<CacheEntry>
  readonly kept: ReadonlyArray<CacheEntry>
  /** Entries that were to go and that somebody has a lock on; `holder` says who. */
  readonly inUse: ReadonlyArray<{ readonly entry: CacheEntry; readonly holder: string }>
  /** Files of downloads that were cut short, removed. */
  readonly downloads: ReadonlyArray<string>
}

/**
 * Remove entries: all of them; with `keep`, all but that many valid ones, those last stored; with `corruptOnly`, the
 * corrupt ones alone. One that was replaced meanwhile stays. So does a directory under a name that no source gives,
 * unless its metadata is ours: the cache may be a directory that holds other things. What dead processes left goes too,
 * and so do downloads that were cut short.
 *
 * @since 0.1.0
 * @category writing
 */
export const cleanCache = Effect.fn("CleanCache.cleanCache")(
  function*(
    root: string,
    options: { readonly keep?: number; readonly corruptOnly?: boolean }
  ): Effect.fn.Return<Cleaned, CacheError | LockTimeout, FileSystem.FileSystem | Native | Scope.Scope> {
    const entries = yield* listEntries(root)
    const spared = new Set(
      entries.filter(({ _tag }) => _tag === "Valid").slice(0, options.corruptOnly ? undefined : options.keep ?? 0)
    )
    const removed: Array<CacheEntry> = []
    const kept: Array<CacheEntry> = []
    const inUse: Array<{ entry: CacheEntry; holder: string }> = []
    const fs = yield* FileSystem.FileSystem
    const isThere = yield* Effect.mapError(fs.exists(root), refused(root))
    if (!isThere) return { removed, kept, inUse, downloads: [] }
    const temporary = yield* temporaryDirectory(root)
    for (const entry of entries) {
      if (spared.has(entry) || isForeign(entry)) {
        kept.push(entry)
        continue
      }
      const { directory, key } = entry
      const remove = Effect.gen(function*() {
        const now = Option.getOrUndefined(yield* readEntry(root, key))
        if (now !== undefined && !isSame(now, entry)) return kept.push(now)
        // out of sight in one step, as a removal takes its time
        yield* Effect.catchAll(fs.rename(directory, join(temporary, key)), () => removeInPlace(directory))
        return removed.push(entry)
      })
      yield* lockEntry(root, key, "exclusive", 0)(Effect.uninterruptible(remove)).pipe(
        Effect.catchTag("LockTimeout", ({ holder }) => Effect.sync(() => inUse.push({ entry, holder })))
      )
    }
    return { removed, kept, inUse, downloads: yield* removeDownloads(root) }
  },
  Effect.scoped
)

/** Remove what downloads that were cut short left, and name it; one that goes on has the lock of its file, see `fetchArchive`. */
const removeDownloads = (root: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const directory = join(root, ".downloads")
    const removed: Array<string> = []
    for (const name of yield* Effect.orElseSucceed(fs.readDirectory(directory), () => [])) {
      const file = name.replace(/\.part(?:\.json)?$/, "")
      const remove = Effect.map(fs.remove(join(directory, name), { force: true }), () => removed.push(name))
      yield* lockEntry(root, `download-${file}`, "exclusive", 0)(remove).pipe(
        Effect.catchTag("LockTimeout", ({ holder, path }) => Effect.logDebug(`${path} is in use by ${holder}`))
      )
    }
    return removed
  })

/** Whether an entry is not ours: under a name that no source gives, and without metadata that only we write. */
const isForeign = (entry: CacheEntry): boolean =>
  entry._tag === "Corrupt" && !entry.hasOurMetadata && !SOURCES_KEY.test(entry.key)

/** The keys that sources give, see `CacheKey.ts`. */
const SOURCES_KEY = /^debian-linux-image-\d|-kc[0-9a-f]{8}(?:-xkc[0-9a-f]{8})?$/

const isSame = (a: CacheEntry, b: CacheEntry): boolean =>
  a._tag === "Valid" ? b._tag === "Valid" && a.metadata.storedAt === b.metadata.storedAt : b._tag === "Corrupt"
