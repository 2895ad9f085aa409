import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { KernelIdInvalid, type KernelNotFound } from "../Errors.ts"
import type { FormatError } from "../FormatError.ts"
import type { Native } from "../Native.ts"
import { cachedKernel, type KernelEntryCorrupt } from "./CachedKernel.ts"
import { debianKernel, type DebianKernelError } from "./debian/DebianKernel.ts"
import { artifactsOf, type KernelArtifacts } from "./KernelArtifacts.ts"
import type { KernelId } from "./KernelId.ts"
import { kernelAtPath } from "./KernelPath.ts"

/**
 * All that getting the kernel of an id can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type KernelOfIdError =
  | KernelIdInvalid
  | KernelNotFound
  | FormatError
  | KernelEntryCorrupt
  | DebianKernelError

/**
 * The one kernel that an id means. A kernel of Debian's is fetched where the cache does not hold it; all others are as
 * they are in the file system or in the cache.
 * @param root where `usr/lib/debug` is, for a path
 * @since 0.1.0
 * @category reading
 */
export const kernelOfId = Effect.fn("KernelOfId.kernelOfId")(
  function*(
    id: KernelId,
    root = "/"
  ): Effect.fn.Return<
    KernelArtifacts,
    KernelOfIdError,
    CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native
  > {
    switch (id._tag) {
      case "Path":
        return yield* kernelAtPath(id.path, root)
      case "Debian":
        return artifactsOf(yield* debianKernel(id.selector, id.suite))
      case "DebianRange": {
        const { end, flavour, start } = id.range
        const ends = [start, end].map((series) => flavour === "" ? series : `${series}-${flavour}`)
        return yield* new KernelIdInvalid({
          given: "kernel id",
          id: `debian:${id.suite === undefined ? "" : `${id.suite}/`}${ends.join("..")}`,
          why: "this means several kernels, but one is needed; write one series, as in debian:7.3-cloud"
        })
      }
      default:
        return yield* cachedKernel(id)
    }
  }
)
