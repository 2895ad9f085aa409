import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { join } from "node:path"
import { cacheRoot, refused, temporaryDirectory } from "../../CacheDir.ts"
import { FetchFailed, isPlatformError, pathOf } from "../../Errors.ts"
import type { Native } from "../../Native.ts"
import { lastLine } from "../../process/Subprocess.ts"
import { aptOf, newestAptState, openAptState } from "./AptState.ts"
import type { PackageListError } from "./DebianPackages.ts"
import { debianHost } from "./DebianSuites.ts"
import { fetchTree, keepTree } from "./DebianTree.ts"

/** The guest's shell, what shows BPF objects in it, and chrt, which busybox-static lacks; with the libraries that they need. */
const PACKAGES = ["busybox-static", "bpftool", "util-linux"]
/** Where there is no Debian release to take the same from. */
const OTHERWISE = "bookworm"
const DIRECTORY = ".programs"

/**
 * A directory with Debian's programs for arm64 guests as they lie in such a system: busybox, bpftool, chrt and others of
 * util-linux, and their libraries. Downloaded and unpacked into the cache by a private apt, once; nothing is installed.
 */
export const arm64Programs: Effect.Effect<
  string,
  PackageListError,
  CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native
> = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const root = yield* cacheRoot
  const directory = join(root, DIRECTORY, "arm64")
  if (yield* fs.exists(directory)) return directory
  const host = yield* debianHost
  const suite = host.codename === undefined || host.codename === "sid" ? OTHERWISE : host.codename
  const failed = (step: "download" | "unpack", why: string) =>
    new FetchFailed({
      step,
      subject: `programs for arm64 guests of ${suite}`,
      why,
      hint: "check the network, and the disk"
    })
  const state = yield* newestAptState(yield* openAptState(root, host, suite, "arm64"))
  const scratch = yield* temporaryDirectory(root)
  const needed = yield* aptOf(state, "apt-get", [
    "-qq",
    "--print-uris",
    "--no-install-recommends",
    "install",
    ...PACKAGES
  ])
  const words = Array.from(
    needed.stdout.matchAll(/ ([a-z0-9.+-]+)_([^_ ]+)_(?:arm64|all)\.deb /g),
    ([, name, version]) => `${name}=${decodeURIComponent(version)}`
  )
  if (needed.code !== 0 || words.length < PACKAGES.length) return yield* failed("download", lastLine(needed.stderr))
  const tree = yield* fetchTree({
    state,
    words,
    scratch,
    label: `download busybox, bpftool and util-linux for arm64 of ${suite}, 9 MB`,
    failed
  })
  // since trixie they lie under usr alone
  if (!(yield* fs.exists(join(tree, "bin")))) yield* fs.symlink("usr/bin", join(tree, "bin"))
  if (!(yield* fs.exists(join(tree, "lib")))) yield* fs.symlink("usr/lib", join(tree, "lib"))
  yield* keepTree(tree, directory)
  return directory
}).pipe(
  Effect.scoped,
  Effect.catchIf(isPlatformError, (error) => refused(pathOf(error))(error)),
  Effect.withSpan("GuestPrograms.arm64Programs")
)
