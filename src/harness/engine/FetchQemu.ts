import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { join } from "node:path"
import { type CacheError, cacheRoot, refused, temporaryDirectory } from "../../core/CacheDir.ts"
import type { LockTimeout } from "../../core/EntryLock.ts"
import { FetchFailed, HostLacks, isPlatformError, pathOf } from "../../core/Errors.ts"
import { newestAptState, openAptState } from "../../core/kernels/debian/AptState.ts"
import { debianHost } from "../../core/kernels/debian/DebianSuites.ts"
import { fetchTree, keepTree } from "../../core/kernels/debian/DebianTree.ts"
import type { Native } from "../../core/Native.ts"
import { lastLine, runToEnd } from "../../core/process/Subprocess.ts"
import { EXACT_SINCE, fetchedQemus, QEMU_DIRECTORY, type QemuFound, versionOf } from "./FindQemu.ts"

const HINTS = {
  download: "check the network",
  unpack: "check the free space of the cache's file system",
  start: "install the machine's own qemu-system-x86 for its libraries, and try again"
}

/** The packages of QEMU for x86 guests, without its libraries: those of the machine's own QEMU are used. */
const PACKAGES = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"]

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native

/**
 * Get the QEMU of the backports of the Debian release that this machine runs: downloaded (13 MB) and unpacked into the
 * cache unless it is there. Nothing is installed, and no privileges are needed.
 *
 * @since 0.1.0
 * @category writing
 */
export const fetchQemu: Effect.Effect<
  QemuFound,
  CacheError | LockTimeout | HostLacks | FetchFailed,
  Host
> = Effect.gen(function*() {
  const there = (yield* fetchedQemus).at(0)
  if (there !== undefined) return there
  const root = yield* cacheRoot
  const host = yield* debianHost
  if (host.codename === undefined || host.codename === "sid") {
    return yield* new HostLacks({
      what: "QEMU",
      why: "only a Debian release has backports to take it from",
      hint: `install QEMU ${EXACT_SINCE} or newer, or set KTSTR_QEMU to the path of one`
    })
  }
  const suite = `${host.codename}-backports`
  const failed = (step: keyof typeof HINTS, why: string) =>
    new FetchFailed({ step, subject: `the QEMU of ${suite}`, why, hint: HINTS[step] })
  const state = yield* newestAptState(yield* openAptState(root, host, suite))
  const scratch = yield* temporaryDirectory(root)
  const label = `download QEMU of ${suite}, 13 MB`
  const tree = yield* fetchTree({ state, words: PACKAGES, scratch, label, failed })
  const started = yield* runToEnd(join(tree, "usr/bin/qemu-system-x86_64"), ["--version"], "check the cache's mount")
  const version = versionOf(started.stdout)
  if (started.code !== 0 || version === undefined) {
    return yield* failed("start", lastLine(started.stderr) || "it does not say its version")
  }
  const directory = join(root, QEMU_DIRECTORY, version)
  yield* keepTree(tree, directory)
  const found = (yield* fetchedQemus).at(0)
  return found ?? (yield* failed("start", "the cache does not hold it any more"))
}).pipe(
  Effect.scoped,
  Effect.catchIf(isPlatformError, (error) => refused(pathOf(error))(error))
)
