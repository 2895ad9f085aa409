import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { join } from "node:path"
import { cacheRoot } from "../CacheDir.ts"
import type { Native } from "../Native.ts"
import { stage } from "../Progress.ts"
import { listEntries, type ValidEntry } from "./cache/KernelCache.ts"
import { parseConfig } from "./config/Kconfig.ts"
import { type DebianPackage, listPackages, type PackageListError } from "./debian/DebianPackages.ts"
import { architectureOf, type DebianSelector, partsOfRelease, selects } from "./debian/DebianSelector.ts"
import { compareDebianVersions } from "./debian/DebianVersion.ts"

/**
 * A kernel that a suite offers, as a search shows it.
 *
 * @since 0.1.0
 * @category models
 */
export interface OfferedKernel extends DebianPackage {
  /** `""` is the plain one, else `cloud`, `rt` … */
  readonly flavour: string
  /** The cache's key of the same package in the same version; undefined: it is not cached. */
  readonly cached: string | undefined
  /**
   * Was it built with CONFIG_SCHED_CLASS_EXT? Undefined: not known before it is fetched, because only its config says so.
   * Kernels before v6.12 have no sched_ext ("sched_ext: Implement BPF extensible scheduler class").
   */
  readonly schedExt: boolean | undefined
}

const FIRST_WITH_SCHED_EXT = "6.12"

/**
 * The kernels that the suites offer, the newest first: those that a selector asks for, or all of them. A kernel that comes
 * signed and unsigned is one.
 * @param suite this one alone; if not given, all that `findPackage` looks in
 *
 * @since 0.1.0
 * @category reading
 */
export const searchKernels = Effect.fn("SearchKernels.searchKernels")(
  function*(
    selector: DebianSelector | undefined,
    suite?: string
  ): Effect.fn.Return<
    ReadonlyArray<OfferedKernel>,
    PackageListError,
    CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native
  > {
    const packages = yield* stage("find packages", "SearchKernels.find")(
      listPackages(
        suite,
        (name) => selector === undefined || selects(selector, name),
        selector === undefined ? "amd64" : architectureOf(selector)
      )
    )
    const entries = (yield* listEntries(yield* cacheRoot)).filter((entry) => entry._tag === "Valid")
    const found = new Map<string, DebianPackage>()
    for (const offered of packages) {
      const key = `${offered.suite} ${offered.release}`
      if (!found.has(key) || offered.name.endsWith("-unsigned")) found.set(key, offered)
    }
    const sorted = Array.from(found.values()).toSorted((a, b) =>
      compareDebianVersions(b.release, a.release) || compareDebianVersions(b.version, a.version)
    )
    return yield* Effect.forEach(sorted, (offered) =>
      Effect.map(cachedFacts(offered, entries), (facts) => ({
        ...offered,
        flavour: partsOfRelease(offered.release)?.flavour ?? "",
        ...facts
      })))
  }
)

const cachedFacts = (
  { name, release, version }: DebianPackage,
  entries: ReadonlyArray<ValidEntry>
): Effect.Effect<Pick<OfferedKernel, "cached" | "schedExt">, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const entry = entries.find(({ metadata: { source } }) =>
      source.kind === "debian" && source.version === version && signedName(source.package) === signedName(name)
    )
    const series = partsOfRelease(release)?.series
    if (series !== undefined && compareDebianVersions(series, FIRST_WITH_SCHED_EXT) < 0) {
      return { cached: entry?.key, schedExt: false }
    }
    if (entry === undefined || entry.metadata.config === null) return { cached: entry?.key, schedExt: undefined }
    const fs = yield* FileSystem.FileSystem
    const config = yield* Effect.option(fs.readFileString(join(entry.directory, entry.metadata.config)))
    return {
      cached: entry.key,
      schedExt: config._tag === "None" ? undefined : parseConfig(config.value).get("CONFIG_SCHED_CLASS_EXT") === "y"
    }
  })

const signedName = (name: string): string => name.replace(/-unsigned$/, "")
