import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { dirname, join } from "node:path"
import { makeDirectories } from "../../CacheDir.ts"
import type { FetchFailed } from "../../Errors.ts"
import { lastLine, runToEnd } from "../../process/Subprocess.ts"
import { stage } from "../../Progress.ts"
import { aptOf, type AptState } from "./AptState.ts"
import { APT_HINT } from "./DebianSuites.ts"

/**
 * Packages, downloaded and unpacked as they lie in a Debian system, in a new directory `tree` of `scratch`.
 * @param words the packages as apt-get takes them, NAME or NAME=VERSION
 * @param label the download's, on the terminal
 */
export const fetchTree = Effect.fn("DebianTree.fetchTree")(
  function*(options: {
    readonly state: AptState
    readonly words: ReadonlyArray<string>
    readonly scratch: string
    readonly label: string
    readonly failed: (step: "download" | "unpack", why: string) => FetchFailed
  }) {
    const { failed, label, scratch, state, words } = options
    const fs = yield* FileSystem.FileSystem
    const download = yield* stage(label, "DebianTree.download", { suite: state.suite })(
      aptOf(state, "apt-get", ["-qq", "download", ...words], scratch)
    )
    const archives = (yield* fs.readDirectory(scratch)).filter((name) => name.endsWith(".deb"))
    if (download.code !== 0 || archives.length !== words.length) {
      return yield* failed("download", lastLine(download.stderr) || `apt-get ended with code ${download.code}`)
    }
    const tree = join(scratch, "tree")
    for (const archive of archives) {
      const unpack = yield* stage(`unpack ${archive}`, "DebianTree.unpack", { archive })(
        runToEnd("dpkg", ["-x", join(scratch, archive), tree], APT_HINT)
      )
      if (unpack.code !== 0) return yield* failed("unpack", lastLine(unpack.stderr))
    }
    return tree
  }
)

/** A tree at its place in the cache, complete or not at all; another process may have been first. */
export const keepTree = (
  tree: string,
  directory: string
): Effect.Effect<void, PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    yield* makeDirectories(dirname(directory))
    yield* Effect.catchAll(
      fs.rename(tree, directory),
      (error) => Effect.flatMap(fs.exists(directory), (exists) => exists ? Effect.void : Effect.fail(error))
    )
  })
