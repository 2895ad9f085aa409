import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { join } from "node:path"
import { type CacheError, cacheRoot } from "../CacheDir.ts"
import type { LockTimeout } from "../EntryLock.ts"
import type { HostLacks } from "../Errors.ts"
import type { Native } from "../Native.ts"
import { stage } from "../Progress.ts"
import { lastLine, runToEnd } from "../Subprocess.ts"
import { type KernelContents, listEntries, readEntry, storeKernel, type ValidEntry } from "./cache/KernelCache.ts"
import { compareDebianVersions } from "./DebianVersion.ts"
import type { DebianSelector } from "./KernelId.ts"

/** No package of the distribution is the one asked for. */
export class KernelPackageMissing
  extends Schema.TaggedError<KernelPackageMissing>("ktstr/KernelPackageMissing")("KernelPackageMissing", {
    wanted: Schema.String,
    close: Schema.Array(Schema.String)
  })
{
  override get message() {
    const close = this.close.length === 0
      ? "apt knows no kernel image package at all"
      : `the closest that apt knows are ${this.close.join(", ")}`
    return `no Debian package for ${this.wanted}: ${close}; run \`apt-get update\`, or ask for one of those`
  }
}

/** A package was found and could not be had. `why` is the last line of the program that failed. */
export class KernelFetchFailed
  extends Schema.TaggedError<KernelFetchFailed>("ktstr/KernelFetchFailed")("KernelFetchFailed", {
    package: Schema.String,
    step: Schema.Literal("download", "unpack", "store"),
    why: Schema.String
  })
{
  override get message() {
    const hint = this.step === "download"
      ? "check the network, and run `apt-get update` if the package is gone"
      : "check the free space of the cache's file system, and try again"
    return `cannot ${this.step} ${this.package}: ${this.why}; ${hint}`
  }
}

export type DebianKernelError = CacheError | LockTimeout | HostLacks | KernelPackageMissing | KernelFetchFailed

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native

const APT_MEND = "use a Debian host (apt and dpkg), or give the path of a kernel image"
const CLOSE_NAMES = 3

/**
 * The kernel that a selector asks for, out of the cache or else fetched into it. **Any** cached kernel that matches
 * counts, the newest of them first: a series stays at what was fetched once, without a look at the network, until that
 * entry is removed or `fetchDebianKernel` gets a newer one.
 */
export const debianKernel = Effect.fn("DebianKernel.debianKernel")(
  function*(selector: DebianSelector): Effect.fn.Return<ValidEntry, DebianKernelError, Host> {
    const cached = yield* newestCached(yield* cacheRoot, selector)
    return cached ?? (yield* fetchDebianKernel(selector))
  }
)

/**
 * The newest kernel that a selector asks for and that apt knows: downloaded (`apt-get download`, no privileges needed)
 * and unpacked into the cache unless it is there; nothing is installed. apt checks the package against its signed index.
 */
export const fetchDebianKernel = Effect.fn("DebianKernel.fetchDebianKernel")(
  function*(selector: DebianSelector): Effect.fn.Return<ValidEntry, DebianKernelError, Host> {
    const root = yield* cacheRoot
    const chosen = yield* stage("find package")(newestPackage(selector))
    const key = `debian-${chosen.name}_${chosen.version}`
    const there = Option.getOrUndefined(yield* readEntry(root, key))
    return there?._tag === "Valid"
      ? there
      : yield* storeKernel(root, key, (directory) => fetchInto(directory, chosen), { replace: false })
  }
)

/** Whether a package's name is of what the selector asks for. Debug, meta and other architectures' packages never are. */
export const selects = (selector: DebianSelector, packageName: string): boolean => {
  const release = releaseOfPackage(packageName)
  if (release === undefined) return false
  switch (selector._tag) {
    case "Package":
      return packageName === selector.name
    case "Release":
      return release === selector.release
    case "Pattern":
      return wildcard(selector.pattern, packageName) || wildcard(selector.pattern, release)
    case "Series": {
      const parts = /^(\d+\.\d+\.\d+)[^-]*(?:-\d[^-]*)?-(?:([a-z]+)-)?amd64$/.exec(release)
      return parts !== null && `${parts[1]}.`.startsWith(`${selector.series}.`) &&
        (parts[2] ?? "") === selector.flavour
    }
  }
}

/** Whether a shell pattern of `*`, `?` and `[…]` matches all of a text; one that a shell takes for invalid matches nothing. */
const wildcard = (pattern: string, text: string): boolean => {
  const source = pattern.replaceAll(
    /\*|\?|\[([!^]?)(\]?[^\]]*)\]|[^]/g,
    (part, not?: string, set?: string) =>
      part === "*" ? ".*" : part === "?" ? "." : set === undefined
        ? part.replace(/[\\^$.+(){}|[\]/]/, "\\$&")
        : `[${not === "" ? "" : "^"}${set.replaceAll(/[\\\]^[]/g, "\\$&")}]`
  )
  return Either.getOrElse(Either.try(() => new RegExp(`^${source}$`, "s").test(text)), () => false)
}

/** `6.1.0-56-cloud-amd64` of `linux-image-6.1.0-56-cloud-amd64-unsigned`, the same with or without the last word. */
const releaseOfPackage = (name: string): string | undefined =>
  /^linux-image-(\d+\.\d+\.\d+.*-amd64)(?:-unsigned)?$/.exec(name)?.[1]

const newestFirst = <A>(version: (item: A) => string) => (a: A, b: A): number =>
  compareDebianVersions(version(b), version(a))

const newestCached = (root: string, selector: DebianSelector) =>
  Effect.map(listEntries(root), (entries) =>
    entries
      .flatMap((entry) =>
        entry._tag === "Valid" && entry.metadata.source.kind === "debian" &&
          selects(selector, entry.metadata.source.package)
          ? [{ entry, version: entry.metadata.source.version }]
          : []
      )
      .toSorted(newestFirst(({ version }) => version))
      .at(0)?.entry)

interface Package {
  readonly name: string
  readonly version: string
}

const newestPackage = (
  selector: DebianSelector
): Effect.Effect<Package, HostLacks | KernelPackageMissing, CommandExecutor.CommandExecutor> =>
  Effect.gen(function*() {
    const known = yield* runToEnd("apt-cache", ["pkgnames", "linux-image-"], APT_MEND)
    const images = known.stdout.split("\n").filter((name) => releaseOfPackage(name) !== undefined)
    const names = images.filter((name) => selects(selector, name))
    // a name may be known only because another package mentions it: `show` gives those that exist
    const shown = names.length === 0
      ? ""
      : (yield* runToEnd("apt-cache", ["show", "--no-all-versions", ...names], APT_MEND)).stdout
    const packages = shown.split(/\n\n+/).flatMap((stanza): ReadonlyArray<Package> => {
      const name = /^Package: (\S+)$/m.exec(stanza)?.[1]
      const version = /^Version: (\S+)$/m.exec(stanza)?.[1]
      return name === undefined || version === undefined ? [] : [{ name, version }]
    })
    // the same kernel comes signed and unsigned, in equal versions: unsigned ones are built for more of them
    const newest = packages.toSorted((a, b) =>
      newestFirst<Package>(({ version }) => version)(a, b) ||
      Number(b.name.endsWith("-unsigned")) - Number(a.name.endsWith("-unsigned"))
    ).at(0)
    return newest ?? (yield* new KernelPackageMissing({
      wanted: describe(selector),
      close: closest(images, packageLike(selector))
    }))
  })

const describe = (selector: DebianSelector): string => {
  switch (selector._tag) {
    case "Package":
      return selector.name
    case "Release":
      return `release ${selector.release}`
    case "Pattern":
      return `pattern ${selector.pattern}`
    case "Series":
      return `series ${selector.series}${selector.flavour === "" ? "" : `, flavour ${selector.flavour}`}`
  }
}

const packageLike = (selector: DebianSelector): string => {
  switch (selector._tag) {
    case "Package":
      return selector.name
    case "Release":
      return `linux-image-${selector.release}-unsigned`
    case "Pattern":
      return `linux-image-${/^(?:linux-image-)?([^*?[]*)/.exec(selector.pattern)?.[1]}`
    case "Series":
      return `linux-image-${selector.series}.`
  }
}

/** The names that share the longest start with `wanted`, of equal ones the newest. */
const closest = (names: ReadonlyArray<string>, wanted: string): ReadonlyArray<string> => {
  const shared = (name: string): number => {
    let length = 0
    while (length < name.length && name[length] === wanted[length]) length++
    return length
  }
  return names.toSorted((a, b) => shared(b) - shared(a) || compareDebianVersions(b, a)).slice(0, CLOSE_NAMES)
}

/** Fill a directory with the kernel of a package. */
const fetchInto = (
  directory: string,
  chosen: Package
): Effect.Effect<
  KernelContents,
  HostLacks | KernelFetchFailed,
  CommandExecutor.CommandExecutor | FileSystem.FileSystem
> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const failed = (step: "download" | "unpack" | "store") => (why: string) =>
      new KernelFetchFailed({ package: `${chosen.name} ${chosen.version}`, step, why })
    const scratch = yield* fs.makeTempDirectoryScoped({ directory: join(directory, "..") })

    const download = yield* stage(`download ${chosen.name}`)(
      runToEnd("apt-get", ["-qq", "download", `${chosen.name}=${chosen.version}`], APT_MEND, scratch)
    )
    const archive = (yield* fs.readDirectory(scratch)).find((name) => name.endsWith(".deb"))
    if (download.code !== 0 || archive === undefined) {
      return yield* failed("download")(lastLine(download.stderr) || `apt-get ended with code ${download.code}`)
    }

    const tree = join(scratch, "tree")
    const unpack = yield* stage(`unpack ${chosen.name}`)(
      runToEnd("dpkg", ["-x", join(scratch, archive), tree], APT_MEND)
    )
    if (unpack.code !== 0) return yield* failed("unpack")(lastLine(unpack.stderr))
    const boot = join(tree, "boot")
    const image = (yield* fs.readDirectory(boot)).find((name) => name.startsWith("vmlinuz-"))
    if (image === undefined) return yield* failed("unpack")("the package holds no boot/vmlinuz-*")
    const release = image.slice("vmlinuz-".length)
    yield* fs.rename(join(boot, image), join(directory, "vmlinuz"))
    const config = join(boot, `config-${release}`)
    const hasConfig = yield* fs.exists(config)
    if (hasConfig) yield* fs.rename(config, join(directory, "config"))
    return {
      source: { kind: "debian" as const, package: chosen.name, version: chosen.version },
      release,
      image: "vmlinuz",
      vmlinux: null,
      config: hasConfig ? "config" : null,
      kconfigHash: null,
      extraKconfigHash: null
    }
  }).pipe(
    Effect.scoped,
    Effect.catchTags({
      BadArgument: (error) => Effect.die(error),
      SystemError: (error) =>
        new KernelFetchFailed({
          package: `${chosen.name} ${chosen.version}`,
          step: "store",
          why: error.description ?? error.message
        })
    })
  )
