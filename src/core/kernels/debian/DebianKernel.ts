import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { join } from "node:path"
import { cacheRoot } from "../../CacheDir.ts"
import { FetchFailed, isPlatformError, type KernelNotFound, platformText } from "../../Errors.ts"
import type { Native } from "../../Native.ts"
import { runToEnd } from "../../process/Subprocess.ts"
import { stage } from "../../Progress.ts"
import { type KernelContents, listEntries, readEntry, storeKernel, type ValidEntry } from "../cache/KernelCache.ts"
import { aptOf, openAptState } from "./AptState.ts"
import { type DebianPackage, findPackage, type PackageListError } from "./DebianPackages.ts"
import { architectureOf, architectureOfPackage, type DebianSelector, selects } from "./DebianSelector.ts"
import { APT_HINT, debianHost } from "./DebianSuites.ts"
import { compareDebianVersions } from "./DebianVersion.ts"
import { complaintOf, flush, unpack, UNPACKED, withUnpacked } from "./UnpackedKernel.ts"

/**
 * All that getting a Debian kernel can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type DebianKernelError = PackageListError | KernelNotFound

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native

/**
 * The kernel that a selector asks for, out of the cache or else fetched into it. **Any** cached kernel that matches
 * counts, the newest of them first: a series stays at what was fetched once, without a look at the network, until that
 * entry is removed or `fetchDebianKernel` gets a newer one.
 * @param suite only a kernel of this suite; if not given of the first one that has it, see `suitesOf`
 * @since 0.1.0
 * @category reading
 */
export const debianKernel = Effect.fn("DebianKernel.debianKernel")(
  function*(selector: DebianSelector, suite?: string): Effect.fn.Return<ValidEntry, DebianKernelError, Host> {
    const cached = yield* newestCached(yield* cacheRoot, selector, suite)
    return cached === undefined ? yield* fetchDebianKernel(selector, suite) : yield* withUnpacked(cached)
  }
)

/**
 * The newest kernel that a selector asks for and that a suite offers: downloaded (`apt-get download`, no privileges
 * needed) and unpacked into the cache unless it is there; nothing is installed. apt checks the packages against the
 * suite's signed index.
 *
 * @since 0.1.0
 * @category writing
 */
export const fetchDebianKernel = Effect.fn("DebianKernel.fetchDebianKernel")(
  function*(selector: DebianSelector, suite?: string): Effect.fn.Return<ValidEntry, DebianKernelError, Host> {
    const chosen = yield* stage("find package", "DebianKernel.find")(findPackage(selector, suite, "recent"))
    return yield* Effect.catchIf(fetchPackage(chosen), isDownloadFailure, (failed) =>
      Effect.gen(function*() {
        // the mirror may have dropped it for a newer one since the lists were downloaded
        const now = yield* findPackage(selector, suite, "newest")
        return now.name === chosen.name && now.version === chosen.version
          ? yield* fetchOlder(selector, suite, failed, [`${chosen.name}=${chosen.version}`])
          : yield* fetchPackage(now)
      }))
  }
)

/** How many packages of a kernel that a mirror lists and does not have are passed over. */
const GONE_LIMIT = 4

/** The newest kernel but those that the mirror lists and does not have, the last of which `failed`. */
const fetchOlder = (
  selector: DebianSelector,
  suite: string | undefined,
  failed: FetchFailed,
  gone: ReadonlyArray<string>
): Effect.Effect<ValidEntry, DebianKernelError, Host> =>
  Effect.gen(function*() {
    if (failed.status !== 404 || gone.length > GONE_LIMIT) return yield* failed
    const older = yield* Effect.catchTag(
      findPackage(selector, suite, "recent", gone),
      "KernelNotFound",
      () => Effect.fail(failed)
    )
    yield* Effect.logWarning(
      `${failed.subject} is in the mirror's lists and not on the mirror; taking ${older.name} ${older.version}`
    )
    return yield* Effect.catchIf(
      fetchPackage(older),
      isDownloadFailure,
      (again) => fetchOlder(selector, suite, again, [...gone, `${older.name}=${older.version}`])
    )
  })

const isDownloadFailure = (error: DebianKernelError): error is FetchFailed =>
  error._tag === "FetchFailed" && error.step === "download"

/**
 * Get a package of a suite into the cache, unless it is there.
 *
 * @since 0.1.0
 * @category writing
 */
export const fetchPackage = (chosen: DebianPackage): Effect.Effect<ValidEntry, DebianKernelError, Host> =>
  Effect.gen(function*() {
    const root = yield* cacheRoot
    const key = `debian-${chosen.name}_${chosen.version}`
    const there = Option.getOrUndefined(yield* readEntry(root, key))
    const hasModules = !chosen.missing.some((part) => part.startsWith(MODULES_PACKAGE))
    return there?._tag === "Valid" && (there.metadata.modules !== null || !hasModules)
      ? there
      : yield* storeKernel(root, key, (directory) => fetchInto(directory, chosen), { replace: true })
  })

const newestCached = (root: string, selector: DebianSelector, suite: string | undefined) =>
  Effect.map(listEntries(root), (entries) =>
    entries
      .flatMap((entry) =>
        entry._tag === "Valid" && entry.metadata.source.kind === "debian" &&
          (suite === undefined || entry.metadata.source.suite === suite) &&
          architectureOfPackage(entry.metadata.source.package) === architectureOf(selector) &&
          selects(selector, entry.metadata.source.package)
          ? [{ entry, version: entry.metadata.source.version }]
          : []
      )
      .toSorted((a, b) => compareDebianVersions(b.version, a.version))
      .at(0)?.entry)

/** Fill a directory with the kernel of a package, and its modules. */
const fetchInto = (
  directory: string,
  chosen: DebianPackage
): Effect.Effect<KernelContents, PackageListError, Host> => {
  const failed = (step: "download" | "unpack" | "store") => (why: string, status?: number) =>
    new FetchFailed({
      step,
      ...(status === undefined ? {} : { status }),
      subject: `${chosen.name} ${chosen.version}`,
      why,
      hint: step === "download"
        ? "check the network"
        : "check the free space of the cache's file system, and try again"
    })
  return Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const scratch = yield* fs.makeTempDirectoryScoped({ directory: join(directory, "..") })
    const architecture = architectureOfPackage(chosen.name)
    const state = yield* openAptState(yield* cacheRoot, yield* debianHost, chosen.suite, architecture)

    const words = chosen.parts.map((part) => `${part}=${chosen.version}`)
    const mebibytes = Math.ceil(chosen.bytes / 2 ** 20)
    const download = yield* stage(
      `download ${chosen.name} ${chosen.version} of ${chosen.suite}, ${mebibytes} MiB`,
      "DebianKernel.download",
      { package: chosen.name, version: chosen.version, suite: chosen.suite }
    )(
      aptOf(state, "apt-get", ["-qq", "download", ...words], scratch)
    )
    const archives = (yield* fs.readDirectory(scratch)).filter((name) => name.endsWith(".deb"))
    if (download.code !== 0 || archives.length !== chosen.parts.length) {
      const why = complaintOf(download.stderr) || `apt-get ended with code ${download.code}`
      return yield* failed("download")(why, /\s404\s/.test(why) ? 404 : undefined)
    }

    const tree = join(scratch, "tree")
    for (const archive of archives) {
      const unpack = yield* stage(`unpack ${archive}`, "DebianKernel.unpack", { archive })(
        runToEnd("dpkg", ["-x", join(scratch, archive), tree], APT_HINT)
      )
      if (unpack.code !== 0) return yield* failed("unpack")(complaintOf(unpack.stderr))
    }
    const release = chosen.release
    const modules = [`usr/lib/modules/${release}`, `lib/modules/${release}`]
    const [image, config, kernel] = [
      yield* firstOf(tree, [`boot/vmlinuz-${release}`, ...modules.map((path) => `${path}/vmlinuz`)]),
      yield* firstOf(tree, [`boot/config-${release}`, ...modules.map((path) => `${path}/config`)]),
      yield* firstOf(tree, modules.map((path) => `${path}/kernel`))
    ]
    if (image === undefined) return yield* failed("unpack")(`the package holds no vmlinuz of ${release}`)
    const without = chosen.missing.find((part) => part.startsWith(MODULES_PACKAGE))
    if (kernel === undefined && without === undefined) {
      return yield* failed("unpack")(`the package holds no modules of ${release}`)
    }
    if (kernel === undefined) {
      yield* Effect.logWarning(
        `${chosen.suite} has no ${without}: a VM of this kernel has no disks and loads no modules`
      )
    }
    const unpacked = yield* unpack(image, join(directory, UNPACKED))
    yield* fs.rename(image, join(directory, "vmlinuz"))
    if (config !== undefined) yield* fs.rename(config, join(directory, "config"))
    if (kernel !== undefined) {
      yield* fs.makeDirectory(join(directory, MODULES))
      for (const name of ["kernel", "modules.builtin"]) {
        yield* fs.rename(join(kernel, "..", name), join(directory, MODULES, name))
      }
    }
    const unwritten = yield* flush(directory)
    if (unwritten !== undefined) return yield* failed("store")(unwritten)
    return {
      source: { kind: "debian" as const, package: chosen.name, version: chosen.version, suite: chosen.suite },
      release,
      arch: architecture === "arm64" ? "aarch64" as const : "x86_64" as const,
      image: "vmlinuz",
      vmlinux: null,
      unpacked: unpacked ? UNPACKED : null,
      config: config === undefined ? null : "config",
      modules: kernel === undefined ? null : MODULES,
      kconfigHash: null,
      extraKconfigHash: null
    }
  }).pipe(
    Effect.scoped,
    Effect.catchIf(isPlatformError, (error) => failed("store")(platformText(error)))
  )
}

/** Where an entry has its modules, as in /lib/modules/RELEASE: `kernel/` and `modules.builtin`. */
const MODULES = "modules"

/** The start of the name of a package that holds a kernel's modules alone. */
const MODULES_PACKAGE = "linux-modules-"

/** The first of the paths that a tree has, by its real name: a package's links do not lead out of it. */
const firstOf = (tree: string, paths: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const root = yield* fs.realPath(tree)
    for (const path of paths) {
      const real = yield* Effect.orElseSucceed(fs.realPath(join(tree, path)), () => "")
      if (real.startsWith(`${root}/`)) return real
    }
    return undefined
  })
