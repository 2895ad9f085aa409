import * as FileSystem from "@effect/platform/FileSystem"
import type * as HttpClient from "@effect/platform/HttpClient"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { join } from "node:path"
import { type CacheError, refused, temporaryDirectory } from "../../CacheDir.ts"
import type { LockTimeout } from "../../EntryLock.ts"
import { FetchFailed, KernelNotFound } from "../../Errors.ts"
import type { Native } from "../../Native.ts"
import { compareKernelVersions, covers, type KernelVersion, parseKernelVersion } from "../KernelVersion.ts"
import { download } from "./Download.ts"

/** The list of checksums of a series has some 100 KB. */
const LIST_LIMIT = 16 * 2 ** 20

/** Where a release's sources are. */
export interface KernelRelease {
  /** As `make kernelversion` writes it: `6.14.0`, `6.15.0-rc1`. */
  readonly version: string
  readonly url: string
  /** 64 hex digits; none is published for a release candidate. */
  readonly sha256?: string
}

const MIRROR = "https://cdn.kernel.org/pub/linux/kernel"
const CANDIDATES = "https://git.kernel.org/torvalds/t"
const CLOSE_VERSIONS = 3

/** The version that `make kernelversion` prints in the tree of a release: always with a patch number (Makefile, v6.12). */
export const exactVersion = ({ major, minor, patch, rc }: KernelVersion): string =>
  `${major}.${minor}.${patch ?? 0}${rc === undefined ? "" : `-rc${rc}`}`

/** The name of a release's tarball: the first of a series has no patch number. */
export const tarballName = ({ major, minor, patch, rc }: KernelVersion): string =>
  rc === undefined
    ? `linux-${major}.${minor}${patch === undefined || patch === 0 ? "" : `.${patch}`}.tar.xz`
    : `linux-${major}.${minor}-rc${rc}.tar.gz`

/**
 * The tarball of a version, of a series (`6.14`) that of its newest release; `6.14.0` is the first release.
 *
 * The mirror is https://cdn.kernel.org/pub/linux/kernel, or `KTSTR_KERNEL_MIRROR` with the same layout. Its
 * `v6.x/sha256sums.asc` says which releases there are and their checksums. The signature of that list is **not**
 * verified, so this is as safe as the connection to the mirror. A release candidate is in no such list: it comes, without
 * a checksum, from https://git.kernel.org/torvalds/t, or from `rc/` of `KTSTR_KERNEL_MIRROR`.
 * @param root the cache, where the list is put as long as it is read
 */
export const kernelRelease = Effect.fn("KernelRelease.kernelRelease")(
  function*(
    asked: KernelVersion,
    root: string
  ): Effect.fn.Return<
    KernelRelease,
    CacheError | FetchFailed | KernelNotFound | LockTimeout,
    FileSystem.FileSystem | HttpClient.HttpClient | Native
  > {
    const own = yield* ownMirror
    const mirror = own ?? MIRROR
    if (asked.rc !== undefined) {
      if ((asked.patch ?? 0) > 0) return yield* missing(asked, mirror, [])
      const place = own === undefined ? CANDIDATES : `${own}/rc`
      return { version: exactVersion(asked), url: `${place}/${tarballName(asked)}` }
    }
    const directory = `${mirror}/v${asked.major}.x`
    const listed = parseChecksums(yield* checksums(`${directory}/sha256sums.asc`, asked, mirror, root))
    const found = listed.filter(({ version }) => covers(asked, version)).at(-1)
    if (found === undefined) {
      return yield* missing(asked, mirror, closest(asked, listed))
    }
    const { sha256, version } = found
    return { version: exactVersion(version), url: `${directory}/${tarballName(version)}`, sha256 }
  }
)

const missing = (asked: KernelVersion, mirror: string, close: ReadonlyArray<string>): KernelNotFound =>
  new KernelNotFound({
    where: "kernel.org",
    kernel: asked.text,
    why: `${mirror} has no such release`,
    hint: close.length === 0 ? "check the version" : `the closest are ${close.join(", ")}`,
    close
  })

const ownMirror: Effect.Effect<string | undefined, FetchFailed> = Effect.gen(function*() {
  const variable = yield* Effect.orDie(Config.option(Config.string("KTSTR_KERNEL_MIRROR")))
  const mirror = Option.getOrElse(variable, () => "").trim().replace(/\/+$/, "")
  if (mirror === "") return undefined
  if (/^https?:\/\/./.test(mirror)) return mirror
  return yield* new FetchFailed({
    step: "download",
    subject: mirror,
    why: "KTSTR_KERNEL_MIRROR is not an http or https URL",
    hint: `set it to one with the layout of ${MIRROR}, or unset it`
  })
})

const checksums = (url: string, asked: KernelVersion, mirror: string, root: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const file = join(yield* temporaryDirectory(root), "sha256sums.asc")
    yield* Effect.catchIf(
      download(url, file, { limit: LIST_LIMIT }),
      (error) => error.status === 404,
      () => missing(asked, mirror, [])
    )
    return yield* Effect.mapError(fs.readFileString(file), refused(file))
  }).pipe(Effect.scoped)

interface Listed {
  readonly version: KernelVersion
  readonly sha256: string
}

/** The releases of a list of checksums, the earliest first. */
const parseChecksums = (text: string): ReadonlyArray<Listed> =>
  Array.from(text.matchAll(/^([0-9a-f]{64}) [ *]linux-(\S+)\.tar\.xz$/gm), ([, sha256, name]) => {
    const version = parseKernelVersion(name)
    return version === undefined ? [] : [{ version, sha256 }]
  }).flat().toSorted((a, b) => compareKernelVersions(a.version, b.version))

/** Where a version would be in the list: the two releases before it and the one after it. */
const closest = (asked: KernelVersion, listed: ReadonlyArray<Listed>): ReadonlyArray<string> => {
  const before = listed.filter(({ version }) => compareKernelVersions(version, asked) < 0).length
  const start = Math.max(0, Math.min(before - 2, listed.length - CLOSE_VERSIONS))
  return listed.slice(start, start + CLOSE_VERSIONS).map(({ version }) => version.text)
}
