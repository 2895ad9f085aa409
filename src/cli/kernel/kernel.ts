import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { join } from "node:path"
import { cacheRoot } from "../../core/CacheDir.ts"
import { type KernelIdInvalid, KernelNotFound } from "../../core/Errors.ts"
import { buildKernel } from "../../core/kernels/build/KernelBuild.ts"
import type { BuildSource } from "../../core/kernels/build/SourceTree.ts"
import { kconfigHash } from "../../core/kernels/cache/CacheKey.ts"
import { cleanCache } from "../../core/kernels/cache/CleanCache.ts"
import { type CacheEntry, kernelFiles, listEntries, type ValidEntry } from "../../core/kernels/cache/KernelCache.ts"
import { KernelMetadata, type KernelSource } from "../../core/kernels/cache/KernelMetadata.ts"
import { parseConfig } from "../../core/kernels/config/Kconfig.ts"
import { fetchDebianKernel, fetchPackage } from "../../core/kernels/debian/DebianKernel.ts"
import { findPackage } from "../../core/kernels/debian/DebianPackages.ts"
import { packagesInRange } from "../../core/kernels/debian/DebianRange.ts"
import { inspectKernel } from "../../core/kernels/KernelFacts.ts"
import { parseKernelId } from "../../core/kernels/KernelId.ts"
import { KernelResolver } from "../../core/kernels/KernelResolver.ts"
import { searchKernels } from "../../core/kernels/SearchKernels.ts"
import * as NativeKoffi from "../../core/NativeKoffi.ts"
import { readForeignText } from "../../core/process/ForeignText.ts"
import { bold, dim, green, red, yellow } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { FileUnreadable, UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import { holdSignals } from "../terminal/signals.ts"
import * as Stages from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"
import type { BuildConfig, CleanConfig } from "./kernelOptions.ts"

const Live = Layer.provideMerge(KernelResolver.layer, NativeKoffi.layer)

/** An entry as `kernel list --json` prints it. */
const ListedEntry = Schema.Union(
  Schema.Struct({
    key: Schema.String,
    directory: Schema.String,
    state: Schema.Literal("valid"),
    kconfig: Schema.Literal("current", "stale", "other").annotations({
      description: "built with ktstr's kconfig of today, with an earlier one, or by somebody else"
    }),
    metadata: KernelMetadata
  }),
  Schema.Struct({
    key: Schema.String,
    directory: Schema.String,
    state: Schema.Literal("corrupt"),
    kind: Schema.String,
    why: Schema.String
  })
)

/** The document of `kernel list --json`: the cache's directory and its entries, newest first. */
export const KernelList = Schema.Struct({ root: Schema.String, entries: Schema.Array(ListedEntry) })

const kconfigState = ({ kconfigHash: built }: KernelMetadata) =>
  built === null ? "other" : built === kconfigHash() ? "current" : "stale"

const listed = (entry: CacheEntry): typeof ListedEntry.Type =>
  entry._tag === "Valid"
    ? {
      key: entry.key,
      directory: entry.directory,
      state: "valid",
      kconfig: kconfigState(entry.metadata),
      metadata: entry.metadata
    }
    : { key: entry.key, directory: entry.directory, state: "corrupt", kind: entry.kind, why: entry.why }

export const list = (config: { readonly json: boolean }) =>
  Effect.gen(function*() {
    const root = yield* cacheRoot
    const entries = yield* listEntries(root)
    if (config.json) {
      return yield* writeText(
        `${JSON.stringify(yield* Effect.orDie(Schema.encode(KernelList)({ root, entries: entries.map(listed) })))}\n`
      )
    }
    if (entries.length === 0) return yield* writeText(`no kernels in ${escapeLine(root)}\n`)
    const rows = entries.map((entry) =>
      entry._tag === "Corrupt"
        ? [escapeLine(entry.key), red(entry.kind), "", "", escapeLine(entry.why)]
        : [
          escapeLine(entry.key),
          kconfigState(entry.metadata) === "stale" ? yellow("stale kconfig") : green("ok"),
          escapeLine(entry.metadata.release),
          `${Math.round(sizeOf(entry.metadata) / 2 ** 20)} MiB`,
          escapeLine(sourceText(entry.metadata.source))
        ]
    )
    yield* writeText(table(["KEY", "STATE", "RELEASE", "SIZE", "SOURCE"], rows, [3]))
  })

const sizeOf = (metadata: KernelMetadata): number => kernelFiles(metadata).reduce((sum, { bytes }) => sum + bytes, 0)

const sourceText = (source: KernelSource): string => {
  switch (source.kind) {
    case "debian":
      return `Debian package ${source.package} ${source.version}`
    case "tarball":
      return `tarball ${source.from}`
    case "git":
      return `${source.url} ${source.ref} (${source.commit.slice(0, 12)})`
    case "local":
      return `${source.path} (${source.commit.slice(0, 12)})`
  }
}

/** The kernel that an id means, or without one the kernel that discovery finds. */
const artifacts = (id: Option.Option<string>) =>
  Effect.flatMap(KernelResolver, (resolver) =>
    Option.match(id, {
      onSome: resolver.resolve,
      onNone: () =>
        Effect.flatMap(
          resolver.find,
          Option.match({
            onSome: (found) => Effect.succeed(found),
            onNone: () =>
              KernelNotFound.atPath(
                "$KTSTR_KERNEL, in the cache, ./linux, ../linux, /lib/modules or /boot",
                "nothing is there"
              )
          })
        )
    }))

export const path = (config: { readonly id: Option.Option<string> }) =>
  Effect.flatMap(artifacts(config.id), ({ image }) => writeText(`${image}\n`)).pipe(
    Effect.provide(Live),
    Effect.provide(Stages.layer)
  )

/** The document of `kernel show --json`. Sizes in bytes; `config` has the options that are set, by name. */
export const KernelReport = Schema.Struct({
  release: Schema.String,
  source: Schema.String,
  image: Schema.String,
  vmlinux: Schema.NullOr(Schema.String),
  buildId: Schema.NullOr(Schema.String),
  btfBytes: Schema.NullOr(Schema.Int),
  symbols: Schema.Int,
  config: Schema.NullOr(Schema.Record({ key: Schema.String, value: Schema.String }))
})

/** The options that people look at first, and those without which a kernel cannot be read. */
const OPTIONS = [
  "CONFIG_BPF_SYSCALL",
  "CONFIG_DEBUG_INFO_BTF",
  "CONFIG_KALLSYMS_ALL",
  "CONFIG_SCHED_CLASS_EXT",
  "CONFIG_SERIAL_8250_CONSOLE",
  "CONFIG_BLK_DEV_INITRD",
  "CONFIG_CGROUP_BPF",
  "CONFIG_IKCONFIG",
  "CONFIG_RANDOMIZE_BASE"
]

export const show = (
  config: { readonly id: Option.Option<string>; readonly config: boolean; readonly json: boolean }
) =>
  Effect.gen(function*() {
    if (config.config && config.json) {
      return yield* new UsageError({ problem: "give --config or --json, not both: the document holds the config" })
    }
    const found = yield* artifacts(config.id)
    const facts = yield* inspectKernel(found)
    if (config.config) {
      if (facts.config !== undefined) return yield* writeText(facts.config)
      return yield* KernelNotFound.atPath(
        found.image,
        "its config is not known: no config file beside it, and it was built without CONFIG_IKCONFIG"
      )
    }
    const options = facts.config === undefined ? undefined : parseConfig(facts.config)
    if (config.json) {
      const report = yield* Effect.orDie(
        Schema.encode(KernelReport)({
          release: found.release,
          source: found.source,
          image: found.image,
          vmlinux: found.vmlinux ?? null,
          buildId: facts.buildId ?? null,
          btfBytes: facts.btfBytes ?? null,
          symbols: facts.symbols,
          config: options === undefined ? null : Object.fromEntries(options)
        })
      )
      return yield* writeText(`${JSON.stringify(report)}\n`)
    }
    const absent = (what: string) => yellow(what)
    const rows = [
      ["release", bold(escapeLine(found.release))],
      ["source", escapeLine(found.source)],
      ["image", escapeLine(found.image)],
      ["vmlinux", found.vmlinux === undefined ? dim("none") : escapeLine(found.vmlinux)],
      ["build id", facts.buildId ?? absent("none")],
      ["BTF", facts.btfBytes === undefined ? absent("none: its memory cannot be read") : `${facts.btfBytes} bytes`],
      ["symbols", facts.symbols === 0 ? dim("none in the file; a running one has kallsyms") : String(facts.symbols)],
      ...(options === undefined
        ? [["config", absent("not known")]]
        : [["config", `${options.size} options are set`], ...OPTIONS.map((name) => ["", optionText(options, name)])])
    ]
    yield* writeText(`${rows.map(([name, value]) => `${`${name}`.padEnd(10)}${value}`).join("\n")}\n`)
  }).pipe(Effect.provide(Live), Effect.provide(Stages.layer))

const optionText = (options: ReadonlyMap<string, string>, name: string): string => {
  const value = options.get(name)
  return value === undefined ? dim(`# ${name} is not set`) : `${name}=${escapeLine(value)}`
}

export const fetch = (config: { readonly id: string }) =>
  Effect.gen(function*() {
    yield* holdSignals
    const id = yield* parseKernelId(config.id)
    const print = ({ directory, metadata }: ValidEntry) => writeText(`${join(directory, metadata.image.name)}\n`)
    if (id._tag === "Debian") return yield* print(yield* fetchDebianKernel(id.selector, id.suite))
    if (id._tag !== "DebianRange") {
      return yield* new UsageError({
        problem: "fetch gets Debian's kernels, as in debian:6.12-cloud; ktstr kernel build makes all others"
      })
    }
    const packages = yield* packagesInRange(id.range, id.suite)
    if (packages.length === 0) {
      return yield* new KernelNotFound({
        where: "debian",
        kernel: config.id,
        why: "no suite has a series of that range",
        hint: "`ktstr kernel search` lists what they offer"
      })
    }
    yield* Effect.forEach(packages, (offered) => Effect.flatMap(fetchPackage(offered), print))
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

/** A kernel as `kernel search --json` prints it: `bytes` is its download. */
const SearchedKernel = Schema.Struct({
  release: Schema.String,
  flavour: Schema.String,
  suite: Schema.String,
  package: Schema.String,
  version: Schema.String,
  bytes: Schema.Int,
  schedExt: Schema.NullOr(Schema.Boolean).annotations({
    description: "built with CONFIG_SCHED_CLASS_EXT; null: not known before it is fetched"
  }),
  cached: Schema.NullOr(Schema.String).annotations({ description: "the key in the cache" })
})

/** The document of `kernel search --json`. */
export const KernelSearch = Schema.Struct({ kernels: Schema.Array(SearchedKernel) })

export const search = (config: { readonly wanted: Option.Option<string>; readonly json: boolean }) =>
  Effect.gen(function*() {
    const wanted = Option.getOrElse(config.wanted, () => "*")
    const id = yield* parseKernelId(wanted.startsWith("debian:") ? wanted : `debian:${wanted}`)
    if (id._tag !== "Debian") {
      return yield* new UsageError({ problem: "search takes one series or pattern; a range is for kernel fetch" })
    }
    const offered = yield* searchKernels(id.selector, id.suite)
    if (offered.length === 0) return yield* findPackage(id.selector, id.suite, "recent") // fails, with the nearest names
    if (config.json) {
      const kernels = offered.map(({ bytes, cached, flavour, name, release, schedExt, suite, version }) => ({
        release,
        flavour,
        suite,
        package: name,
        version,
        bytes,
        schedExt: schedExt ?? null,
        cached: cached ?? null
      }))
      return yield* writeText(`${JSON.stringify(yield* Effect.orDie(Schema.encode(KernelSearch)({ kernels })))}\n`)
    }
    const rows = offered.map(({ bytes, cached, flavour, release, schedExt, suite, version }) => [
      escapeLine(release),
      escapeLine(version),
      escapeLine(suite),
      flavour === "" ? "generic" : escapeLine(flavour),
      `${Math.round(bytes / 2 ** 20)} MiB`,
      schedExt === undefined ? dim("?") : schedExt ? green("yes") : "no",
      cached === undefined ? "" : green("cached")
    ])
    yield* writeText(table(["RELEASE", "VERSION", "SUITE", "FLAVOUR", "SIZE", "SCHED_EXT", ""], rows, [4]))
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

/** Prints what `--kernel` takes: the entry's key, or where the image is if the kernel was not stored. */
export const build = (config: BuildConfig) =>
  Effect.gen(function*() {
    yield* holdSignals
    const built = yield* buildKernel({
      source: yield* sourceOf(config),
      extraKconfig: yield* extraKconfigOf(config),
      cpuCap: Option.getOrUndefined(config.cpuCap),
      output: Option.getOrUndefined(config.output),
      force: config.force
    })
    if (built._tag === "Stored") {
      if (!built.fresh) yield* Effect.logInfo("the cache already has this kernel; --force builds it again")
      return yield* writeText(`${built.entry.key}\n`)
    }
    yield* Effect.logWarning(`not stored in the cache, because ${built.why}; it is in ${built.directory}`)
    yield* writeText(`${join(built.directory, "bzImage")}\n`)
  }).pipe(
    Effect.scoped,
    Effect.provide(NativeKoffi.layer),
    Effect.provide(FetchHttpClient.layer),
    Effect.provide(Stages.layer)
  )

const sourceOf = (config: BuildConfig): Effect.Effect<BuildSource, UsageError | KernelIdInvalid> =>
  Effect.gen(function*() {
    const given = [config.version, config.source, config.git, config.tarball].filter(Option.isSome)
    if (given.length !== 1) {
      return yield* new UsageError({
        problem: "say what to build, by one of: a VERSION, --source DIR, --git URL --ref REF, --tarball FILE-OR-URL"
      })
    }
    if (Option.isSome(config.git) !== Option.isSome(config.ref)) {
      return yield* new UsageError({ problem: "--git URL and --ref REF go together" })
    }
    if (Option.isSome(config.source)) return { _tag: "Directory", path: config.source.value }
    if (Option.isSome(config.tarball)) return { _tag: "Tarball", from: config.tarball.value }
    if (Option.isSome(config.git) && Option.isSome(config.ref)) {
      return { _tag: "Git", url: config.git.value, ref: config.ref.value }
    }
    const text = Option.getOrElse(config.version, () => "")
    const id = yield* parseKernelId(text)
    if (id._tag === "Version") return { _tag: "Version", version: id.version }
    return yield* new UsageError({ problem: `${text} is not a version; write 6.14, 6.14.2 or 6.15-rc3` })
  })

const extraKconfigOf = ({ extraKconfig }: BuildConfig) =>
  Effect.gen(function*() {
    if (Option.isNone(extraKconfig)) return undefined
    return yield* Effect.mapError(readForeignText(extraKconfig.value), (why) =>
      new FileUnreadable({
        what: `the kconfig ${extraKconfig.value}`,
        why,
        hint: "give --extra-kconfig a file that you can read"
      }))
  })

export const clean = (
  config: CleanConfig
) =>
  Effect.gen(function*() {
    if ([Option.isSome(config.keep), config.corruptOnly, config.all].filter(Boolean).length !== 1) {
      return yield* new UsageError({
        problem: "say what to remove, by one of: --keep N (all but the newest N), --corrupt-only, --all"
      })
    }
    yield* holdSignals
    const { downloads, inUse, kept, removed } = yield* cleanCache(yield* cacheRoot, {
      ...(Option.isSome(config.keep) ? { keep: config.keep.value } : {}),
      corruptOnly: config.corruptOnly
    })
    const gone = [...removed.map(({ key }) => key), ...downloads.map((name) => `.downloads/${name}`)]
    yield* writeText(gone.map((name) => `removed ${escapeLine(name)}\n`).join("") || "nothing to remove\n")
    for (const { entry, holder } of inUse) {
      yield* Effect.logWarning(`${entry.key} stays: ${holder} is using it`)
    }
    for (const entry of kept) {
      if (entry._tag === "Valid") continue
      yield* Effect.logWarning(`${entry.directory} stays: it does not look like a kernel of ktstr's; remove it by hand`)
    }
  }).pipe(Effect.scoped, Effect.provide(NativeKoffi.layer))
