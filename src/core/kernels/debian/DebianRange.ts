import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import type { Native } from "../../Native.ts"
import { stage } from "../../Progress.ts"
import { type DebianPackage, listPackages, type PackageListError } from "./DebianPackages.ts"
import { architectureOfPackage, partsOfRelease, releaseOfPackage } from "./DebianSelector.ts"
import { compareDebianVersions } from "./DebianVersion.ts"

/**
 * Series from `start` to `end` (`6.16`), both included, of one flavour (`""` is the plain one).
 *
 * @since 0.1.0
 * @category models
 */
export interface DebianRange {
  readonly start: string
  readonly end: string
  readonly flavour: string
}

/**
 * The newest kernel of each series in a range, the oldest series first; of a series' suites the first one counts.
 *
 * @since 0.1.0
 * @category reading
 */
export const packagesInRange = Effect.fn("DebianRange.packagesInRange")(
  function*(
    range: DebianRange,
    suite?: string
  ): Effect.fn.Return<
    ReadonlyArray<DebianPackage>,
    PackageListError,
    CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native
  > {
    const inRange = (name: string) => {
      const parts = partsOfRelease(releaseOfPackage(name) ?? "")
      return parts !== undefined && parts.flavour === range.flavour &&
        compareDebianVersions(range.start, parts.series) <= 0 && compareDebianVersions(parts.series, range.end) <= 0
    }
    const packages = yield* stage("find packages", "DebianRange.find")(
      listPackages(suite, inRange, architectureOfPackage(range.flavour))
    )
    const bySeries = new Map<string, DebianPackage>()
    for (const offered of packages) {
      const series = partsOfRelease(offered.release)?.series ?? ""
      const best = bySeries.get(series)
      if (
        best === undefined ||
        (best.suite === offered.suite && compareDebianVersions(offered.version, best.version) > 0)
      ) bySeries.set(series, offered)
    }
    return Array.from(bySeries.entries()).toSorted(([a], [b]) => compareDebianVersions(a, b)).map(([, offered]) =>
      offered
    )
  }
)
