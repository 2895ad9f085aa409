import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import { join } from "node:path"
import { type CacheError, cacheKeys, cacheRoot, storeEntry } from "./CacheDir.ts"
import { compareDebianVersions } from "./DebianVersion.ts"
import type { HostLacks } from "./Errors.ts"
import type { DebianSelector } from "./KernelId.ts"
import { stage } from "./Progress.ts"
import { lastLine, runToEnd } from "./Subprocess.ts"

/** `metadata.json` of a cached Debian kernel; its files are `vmlinuz`, `config` and `System.map` beside it. */
export class DebianKernelMetadata extends Schema.Class<DebianKernelMetadata>("ktstr/DebianKernelMetadata")({
  source: Schema.Literal("debian"),
  package: Schema.NonEmptyString,
  version: Schema.NonEmptyString,
  release: Schema.NonEmptyString,
  imageBytes: Schema.Int,
  imageSha256: Schema.String.pipe(Schema.pattern(/^[0-9a-f]{64}$/))
}) {}

const MetadataJson = Schema.parseJson(DebianKernelMetadata)

/** A Debian kernel in the cache. */
export interface DebianKernel {
  readonly directory: string
  readonly metadata: DebianKernelMetadata
}

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
    const mend = this.step === "download"
      ? "check the network, and run `apt-get update` if the package is gone"
      : "check the free space of the cache's file system, and try again"
    return `cannot ${this.step} ${this.package}: ${this.why}; ${mend}`
  }
}

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem

const APT_MEND = "use a Debian host (apt and dpkg), or give the path of a kernel image"
const CLOSE_NAMES = 3

/**
 * The kernel that a selector asks for, out of the cache or else downloaded (`apt-get download`, no privileges needed)
 * and unpacked into it; nothing is installed. **Any** cached kernel that matches counts, the newest of them first: a
 * series stays at what was fetched once, without a look at the network, until that entry is removed.
 */
export const debianKernel = Effect.fn("DebianKernel.debianKernel")(
  function*(
    selector: DebianSelector
  ): Effect.fn.Return<DebianKernel, CacheError | HostLacks | KernelPackageMissing | KernelFetchFailed, Host> {
    const root = yield* cacheRoot
    const cached = yield* newestCached(root, selector)
    if (Option.isSome(cached)) return cached.value
    const chosen = yield* stage("find package")(newestPackage(selector))
    const directory = yield* storeEntry(
      root,
      `debian-${chosen.name}_${chosen.version}`,
      (temporary) => fetchInto(temporary, chosen),
      (entry) => Effect.map(readEntry(entry), Option.isSome)
    )
    const stored = yield* readEntry(directory)
    if (Option.isSome(stored)) return stored.value
    return yield* new KernelFetchFailed({ package: chosen.name, step: "store", why: `${directory} is not readable` })
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
    case "Series": {
      const parts = /^(\d+\.\d+\.\d+)[^-]*(?:-\d[^-]*)?-(?:([a-z]+)-)?amd64$/.exec(release)
      return parts !== null && `${parts[1]}.`.startsWith(`${selector.series}.`) &&
        (parts[2] ?? "") === selector.flavour
    }
  }
}

/** `6.1.0-56-cloud-amd64` of `linux-image-6.1.0-56-cloud-amd64-unsigned`, the same with or without the last word. */
const releaseOfPackage = (name: string): string | undefined =>
  /^linux-image-(\d+\.\d+\.\d+.*-amd64)(?:-unsigned)?$/.exec(name)?.[1]

const newestFirst = <A>(version: (item: A) => string) => (a: A, b: A): number =>
  compareDebianVersions(version(b), version(a))

const newestCached = (root: string, selector: DebianSelector) =>
  Effect.gen(function*() {
    const keys = (yield* cacheKeys(root)).filter((key) => {
      const name = /^debian-(.+)_[^_]+$/.exec(key)?.[1]
      return name !== undefined && selects(selector, name)
    })
    const found = yield* Effect.forEach(keys, (key) => readEntry(join(root, key)))
    return Option.fromNullable(
      found.flatMap(Option.toArray).toSorted(newestFirst(({ metadata }) => metadata.version)).at(0)
    )
  })

/** A cache entry, if it is whole: its metadata decode and the image has the size that they say. */
const readEntry = (directory: string): Effect.Effect<Option.Option<DebianKernel>, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const metadata = yield* Schema.decode(MetadataJson)(yield* fs.readFileString(join(directory, "metadata.json")))
    const { size } = yield* fs.stat(join(directory, "vmlinuz"))
    return size === FileSystem.Size(metadata.imageBytes) ? Option.some({ directory, metadata }) : Option.none()
  }).pipe(Effect.orElseSucceed(() => Option.none()))

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

/** Fill a directory with the kernel of a package and its `metadata.json`. */
const fetchInto = (
  directory: string,
  chosen: Package
): Effect.Effect<void, HostLacks | KernelFetchFailed, Host> =>
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
    for (const name of ["config", "System.map"]) {
      const file = join(boot, `${name}-${release}`)
      if (yield* fs.exists(file)) yield* fs.rename(file, join(directory, name))
    }

    const bytes = yield* fs.readFile(join(directory, "vmlinuz"))
    const metadata = yield* Effect.orDie(
      Schema.encode(MetadataJson)(
        new DebianKernelMetadata({
          source: "debian",
          package: chosen.name,
          version: chosen.version,
          release,
          imageBytes: bytes.length,
          imageSha256: createHash("sha256").update(bytes).digest("hex")
        })
      )
    )
    yield* fs.writeFileString(join(directory, "metadata.json"), metadata)
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
