import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type CacheError, cacheRoot } from "../CacheDir.ts"
import { KernelNotFound } from "../Errors.ts"
import type { Native } from "../Native.ts"
import { shellQuote } from "../process/ShellQuote.ts"
import { kconfigHash, parseTarballKey } from "./cache/CacheKey.ts"
import { type CacheEntry, type CorruptEntry, listEntries, type ValidEntry } from "./cache/KernelCache.ts"
import { withUnpacked } from "./debian/UnpackedKernel.ts"
import { artifactsOf, type KernelArtifacts } from "./KernelArtifacts.ts"
import type { KernelId } from "./KernelId.ts"
import { compareKernelVersions, covers, inRange, type KernelVersion, parseKernelVersion } from "./KernelVersion.ts"

/**
 * The one entry that an id means is corrupt; see `CorruptKind` for `kind`.
 *
 * @since 0.1.0
 * @category errors
 */
export class KernelEntryCorrupt
  extends Schema.TaggedError<KernelEntryCorrupt>("ktstr/KernelEntryCorrupt")("KernelEntryCorrupt", {
    key: Schema.String,
    kind: Schema.String,
    why: Schema.String
  })
{
  override get message() {
    return `cache entry ${this.key} is corrupt (${this.kind}): ${this.why}; ` +
      "run `ktstr kernel clean --corrupt-only`, and get the kernel again"
  }
}

/**
 * The ids of kernels that `ktstr kernel build` puts into the cache; only the cache has them.
 *
 * @since 0.1.0
 * @category models
 */
export type CachedKernelId = Extract<KernelId, { readonly _tag: "Version" | "Range" | "Git" | "CacheKey" }>

/**
 * The kernel in the cache that an id means, and never another one:
 * - a version: the entry of that release's tarball, of a series the newest release
 * - a range: the entry of the newest release's tarball inside
 * - git: the entry of that URL and ref that was stored last
 * - a key: that entry
 *
 * Except by its key only an entry counts that was built with the kconfig of now, without an extra fragment. A corrupt
 * entry is passed over, with a warning, where another one will do.
 *
 * @since 0.1.0
 * @category reading
 */
export const cachedKernel = Effect.fn("CachedKernel.cachedKernel")(
  function*(
    id: CachedKernelId
  ): Effect.fn.Return<
    KernelArtifacts,
    CacheError | KernelNotFound | KernelEntryCorrupt,
    CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native
  > {
    const entries = yield* listEntries(yield* cacheRoot)
    const { asked, matches } = lookUp(id, entries)
    const corrupt: Array<CorruptEntry> = []
    for (const { current, entry } of matches) {
      if (!current) continue
      if (entry._tag === "Valid") {
        for (const { key, kind, why } of corrupt) {
          yield* Effect.logWarning(`${asked.kernel}: passing over cache entry ${key}, corrupt (${kind}): ${why}`)
        }
        return artifactsOf(yield* withUnpacked(entry))
      }
      corrupt.push(entry)
    }
    if (corrupt.length > 0) return yield* new KernelEntryCorrupt(corrupt[0])
    return yield* new KernelNotFound({
      where: "cache",
      ...asked,
      why: matches.length === 0 ? asked.why : `${asked.why}, except built with another kconfig`
    })
  }
)

interface Match {
  readonly entry: CacheEntry
  /** Built with the kconfig of now, without an extra fragment. */
  readonly current: boolean
}

interface LookUp {
  /** The fields of `KernelNotFound`. */
  readonly asked: { readonly kernel: string; readonly why: string; readonly hint: string }
  /** The best one first. */
  readonly matches: ReadonlyArray<Match>
}

const NOT_THERE = "it is not in the cache"

const lookUp = (id: CachedKernelId, entries: ReadonlyArray<CacheEntry>): LookUp => {
  switch (id._tag) {
    case "Version":
      return {
        asked: { kernel: id.version.text, why: NOT_THERE, hint: `run \`ktstr kernel build ${id.version.text}\`` },
        matches: tarballs(entries, (release) => covers(id.version, release))
      }
    case "Range": {
      const { end, start } = id
      return {
        asked: {
          kernel: `${start.text}..${end.text}`,
          why: "no release of that range is in the cache",
          hint: `run \`ktstr kernel build ${end.text}\``
        },
        matches: tarballs(entries, (release) => inRange(start, end, release))
      }
    }
    case "Git":
      return {
        asked: {
          kernel: `git+${id.url}#${id.ref}`,
          why: NOT_THERE,
          hint: `run \`ktstr kernel build --git ${shellQuote(id.url)} --ref ${shellQuote(id.ref)}\``
        },
        matches: entries.filter((entry) => entry._tag === "Valid").flatMap((entry) => gitMatch(id, entry))
      }
    case "CacheKey":
      return {
        asked: {
          kernel: id.key,
          why: "the cache has no entry of that name",
          hint: `\`ktstr kernel list\` shows those it has; for a file write ./${id.key}`
        },
        matches: entries.filter(({ key }) => key === id.key).map((entry) => ({ entry, current: true }))
      }
  }
}

/** The entries of tarballs, by their keys, so that corrupt ones are among them; the newest release first. */
const tarballs = (
  entries: ReadonlyArray<CacheEntry>,
  matches: (release: KernelVersion) => boolean
): ReadonlyArray<Match> =>
  entries.flatMap((entry) => {
    const tarball = parseTarballKey(entry.key)
    const release = tarball === undefined ? undefined : parseKernelVersion(tarball.version)
    return tarball === undefined || release === undefined || !matches(release)
      ? []
      : [{ entry, current: tarball.current, release }]
  }).toSorted((a, b) => compareKernelVersions(b.release, a.release))

const gitMatch = (
  { ref, url }: { readonly ref: string; readonly url: string },
  entry: ValidEntry
): ReadonlyArray<Match> => {
  const { extraKconfigHash, kconfigHash: hash, source } = entry.metadata
  return source.kind === "git" && source.url === url && source.ref === ref
    ? [{ entry, current: hash === kconfigHash() && extraKconfigHash === null }]
    : []
}
