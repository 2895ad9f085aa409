import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import type * as HttpClient from "@effect/platform/HttpClient"
import * as Effect from "effect/Effect"
import { basename, join } from "node:path"
import { crc32 } from "node:zlib"
import { type CacheError, makeDirectories, refused } from "../../CacheDir.ts"
import { type LockTimeout, withLock } from "../../EntryLock.ts"
import { type FetchFailed, type HostLacks, isPlatformError } from "../../Errors.ts"
import type { Native } from "../../Native.ts"
import { runToEnd } from "../../process/Subprocess.ts"
import { stage } from "../../Progress.ts"
import { download } from "./Download.ts"
import { MAKEFILE_LIMIT, parseMakefile, SourceInvalid } from "./KernelTree.ts"

export const HINT_ARCHIVE = "give the archive of a kernel tree, as kernel.org and linux-source packages have it"

/** Longer than a download over a slow line takes: another process may be busy with the same one. */
const DOWNLOAD_WAIT = "1 hour"

/**
 * Download an archive and unpack it. The file is in the cache only until then; what an interrupted download left there,
 * until the next one of the same address completes it.
 * @param temporary a directory that is the caller's to remove
 * @returns the archive's top directory, below `temporary`
 */
export const fetchArchive = (
  url: string,
  root: string,
  temporary: string,
  sha256?: string
): Effect.Effect<
  string,
  SourceInvalid | FetchFailed | LockTimeout | HostLacks | CacheError,
  CommandExecutor.CommandExecutor | FileSystem.FileSystem | HttpClient.HttpClient | Native
> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const last = basename(new URL(url).pathname).replaceAll(/[^A-Za-z0-9_.+-]/g, "_")
    const name = `${crc32(url).toString(16).padStart(8, "0")}-${last.slice(-100)}`
    const file = join(root, ".downloads", name)
    const lock = join(root, ".locks", `download-${name}.lock`)
    const work = download(url, file, { sha256 }).pipe(
      Effect.zipRight(unpack(file, url, temporary)),
      Effect.ensuring(Effect.ignore(fs.remove(file, { force: true })))
    )
    yield* makeDirectories(join(root, ".downloads"))
    yield* makeDirectories(join(root, ".locks"))
    return yield* withLock(lock, "exclusive", DOWNLOAD_WAIT)(work)
  }).pipe(
    Effect.catchIf(isPlatformError, (error) => refused(root)(error)),
    Effect.catchTag("SyscallError", (error) => refused(root)(error))
  )

const TAR_MEND = "install it: `apt-get install tar xz-utils`"

/** The start of a top Makefile, where the version stands: a small archive may unpack to a file without end. */
const PEEK = `tar -xOf "$1" --force-local --occurrence=1 --wildcards --no-wildcards-match-slash '*/Makefile' |
  head -c ${MAKEFILE_LIMIT}`

/** The version of the tree in an archive, without unpacking it; undefined where its Makefile is not where it should be. */
export const peekVersion = (
  archive: string
): Effect.Effect<string | undefined, HostLacks, CommandExecutor.CommandExecutor> =>
  Effect.map(
    runToEnd("sh", ["-c", PEEK, "sh", archive], TAR_MEND),
    ({ stdout }) => parseMakefile(stdout)
  )

/**
 * Unpack an archive, of any compression that tar knows, and give its one top directory. GNU tar writes nothing outside:
 * it takes everything up to the last `..` and the first slash off names, and makes links that lead out when all else is
 * there (info tar, "Security").
 * @param subject what errors call it
 */
export const unpack = (
  archive: string,
  subject: string,
  temporary: string
): Effect.Effect<
  string,
  SourceInvalid | HostLacks | CacheError,
  CommandExecutor.CommandExecutor | FileSystem.FileSystem
> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const directory = join(temporary, "source")
    yield* Effect.mapError(fs.makeDirectory(directory), refused(directory))
    const done = yield* stage(`unpack ${basename(subject)}`, "KernelArchive.unpack", { subject })(
      runToEnd(
        "tar",
        ["-xf", archive, "-C", directory, "--force-local", "--no-same-owner", "--no-same-permissions"],
        TAR_MEND
      )
    )
    const invalid = (why: string) => new SourceInvalid({ source: subject, why, hint: HINT_ARCHIVE })
    if (/No space left on device/.test(done.stderr)) {
      return yield* new SourceInvalid({
        source: subject,
        why: "the disk is full (ENOSPC)",
        hint: `make room in ${temporary}, some 2 GiB for the sources of a kernel`
      })
    }
    if (done.code !== 0) return yield* invalid(`it cannot be unpacked (${done.stderr.split("\n", 1)[0]})`)
    const names = yield* Effect.mapError(fs.readDirectory(directory), refused(directory))
    const top = join(directory, names[0] ?? "")
    const isLink = yield* Effect.isSuccess(fs.readLink(top))
    if (names.length !== 1 || isLink) {
      return yield* invalid(`it holds ${names.length} things at its top, not one directory`)
    }
    return top
  })
