import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import type * as HttpClient from "@effect/platform/HttpClient"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { availableParallelism } from "node:os"
import { basename, dirname, join, resolve } from "node:path"
import { crc32 } from "node:zlib"
import { CacheError, cacheRoot, LOCK_WAIT, makeDirectories, refused, temporaryDirectory } from "../../CacheDir.ts"
import { withLock } from "../../EntryLock.ts"
import { type FormatError, parsing } from "../../FormatError.ts"
import { parseElf } from "../../image/Elf.ts"
import { releaseOf } from "../../image/KernelImage.ts"
import type { Native } from "../../Native.ts"
import { lastLine, runGroup, runToEnd } from "../../process/Subprocess.ts"
import { stage } from "../../Progress.ts"
import { extraKconfigHash, kconfigHash, mergeKconfig } from "../cache/CacheKey.ts"
import { readEntry, storeKernel, type ValidEntry } from "../cache/KernelCache.ts"
import { type KconfigInvalid, parseConfig, parseFragment, type Unmet, unmet } from "../config/Kconfig.ts"
import { ESSENTIAL_OPTIONS, TEST_KCONFIG } from "../config/TestKconfig.ts"
import { requireBuildTools } from "./BuildTools.ts"
import { SourceInvalid } from "./KernelTree.ts"
import {
  type BuildSource,
  directoryIdentity,
  planSource,
  type SourceError,
  type SourceIdentity,
  type SourcePlan
} from "./SourceTree.ts"

/**
 * A kernel to build, and how to build it.
 *
 * @since 0.1.0
 * @category models
 */
export interface BuildRequest {
  readonly source: BuildSource
  /** The text of a kconfig fragment that wins over ours. */
  readonly extraKconfig?: string | undefined
  /** How many compilers run at once; as many as there are CPUs if not given. */
  readonly cpuCap?: number | undefined
  /** Build, and replace the cache's entry, even where the cache has it. */
  readonly force?: boolean | undefined
  /** Where a kernel goes that is not stored; `./ktstr-build-<release>` if not given. */
  readonly output?: string | undefined
}

/**
 * A kernel that is there now. One whose sources cannot be named, because they have changes that are not committed, is not
 * stored: `bzImage`, `vmlinux` and `.config` are in `directory`, and `why` says what the sources lack.
 *
 * @since 0.1.0
 * @category models
 */
export type Built =
  | { readonly _tag: "Stored"; readonly entry: ValidEntry; readonly fresh: boolean }
  | { readonly _tag: "NotStored"; readonly directory: string; readonly release: string; readonly why: string }

/**
 * The build did not end well. `why` is the first error that it printed.
 *
 * @since 0.1.0
 * @category errors
 */
export class KernelBuildFailed
  extends Schema.TaggedError<KernelBuildFailed>("ktstr/KernelBuildFailed")("KernelBuildFailed", {
    step: Schema.Literal("configure", "compile", "strip", "store"),
    why: Schema.String,
    hint: Schema.String
  })
{
  override get message() {
    return `cannot ${this.step} the kernel: ${this.why}; ${this.hint}`
  }
}

/**
 * Options that kconfig did not take over.
 *
 * @since 0.1.0
 * @category errors
 */
export class KconfigUnmet extends Schema.TaggedError<KconfigUnmet>("ktstr/KconfigUnmet")("KconfigUnmet", {
  options: Schema.Array(Schema.Struct({ option: Schema.String, wanted: Schema.String, got: Schema.String })),
  hint: Schema.String
}) {
  override get message() {
    return `this kernel's configuration did not take ${describe(this.options)}; ${this.hint}`
  }
}

const describe = (options: ReadonlyArray<Unmet>): string =>
  options.map(({ got, option, wanted }) => `${option}=${wanted} (it is ${got})`).join(", ")

/**
 * All that building a kernel can fail with.
 *
 * @since 0.1.0
 * @category errors
 */
export type BuildError = SourceError | KconfigInvalid | KconfigUnmet | KernelBuildFailed | FormatError

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | HttpClient.HttpClient | Native

/**
 * A kernel of our kconfig (`TEST_KCONFIG`) and the user's: out of the cache, or built and put into it. All of it happens
 * in a directory inside the cache, which needs about 4 GB while it lasts and is gone afterwards, whatever happens;
 * interruption ends the compilers first. What the build printed stays in `<cache>/.logs` only where it failed.
 *
 * **A build runs programs out of the sources**: build none that you would not run.
 *
 * @since 0.1.0
 * @category writing
 */
export const buildKernel = Effect.fn("KernelBuild.buildKernel")(
  function*(request: BuildRequest): Effect.fn.Return<Built, BuildError, Host> {
    const root = yield* cacheRoot
    const asked = yield* parseFragment(request.extraKconfig ?? "")
    const plan = yield* planSource(request.source, root, request.extraKconfig)
    const work = Effect.gen(function*() {
      const cached = request.force === true ? undefined : yield* cachedBuild(root, plan)
      if (cached !== undefined) return { _tag: "Stored", entry: cached, fresh: false } as const
      yield* requireBuildTools
      const temporary = yield* temporaryDirectory(root)
      const { config, directory, identity } = yield* plan.open(temporary)
      const log = join(root, ".logs", `${logName(identity, directory)}.log`)
      const job: Job = {
        tree: directory,
        config,
        out: join(temporary, "out"),
        log,
        jobs: request.cpuCap ?? availableParallelism()
      }
      return yield* keepingLog(
        log,
        Effect.gen(function*() {
          yield* Effect.mapError(prepare(job), refused(root))
          yield* stage("configure", "KernelBuild.configure")(configure(job, asked, request.extraKconfig))
          yield* stage("compile", "KernelBuild.compile")(make("compile", job, "bzImage", "vmlinux"))
          const after = plan.shared === undefined
            ? identity
            : yield* directoryIdentity(plan.shared, request.extraKconfig)
          return yield* deliver(root, job, sameIdentity(identity, after), request)
        })
      )
    }).pipe(Effect.scoped)
    return yield* plan.shared === undefined ? work : lockedTree(plan.shared, work)
  }
)

const lockedTree = <A, E, R>(path: string, work: Effect.Effect<A, E, R>) =>
  withLock(path, "exclusive", LOCK_WAIT)(Effect.either(work)).pipe(
    Effect.catchTag("SyscallError", (error) => unlockable(path, error)),
    Effect.flatten
  )

const unlockable = (source: string, error: Error): SourceInvalid =>
  new SourceInvalid({ source, why: error.message, hint: "give a directory that you can read" })

const cachedBuild = (
  root: string,
  { identity, made }: SourcePlan
): Effect.Effect<ValidEntry | undefined, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    if (identity?._tag !== "Storable") return undefined
    const entry = Option.getOrUndefined(yield* readEntry(root, identity.key))
    return entry?._tag === "Valid" && (yield* made(entry)) ? entry : undefined
  })

/** The identity of the built sources: unstorable if another commit was checked out during the build. */
const sameIdentity = (before: SourceIdentity, after: SourceIdentity): SourceIdentity =>
  before._tag === "Storable" && after._tag === "Storable" && before.key !== after.key
    ? { _tag: "Unstorable", why: "another commit of it was checked out during the build" }
    : before._tag === "Unstorable"
    ? before
    : after

const logName = (identity: SourceIdentity, directory: string): string =>
  identity._tag === "Storable" ? identity.key : `local-unknown-${crc32(directory).toString(16).padStart(8, "0")}`

/** Keep the log of a build that failed. */
const keepingLog = <A, E, R>(
  log: string,
  work: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R | FileSystem.FileSystem> =>
  Effect.onExit(
    work,
    (exit) =>
      Exit.isFailure(exit) && Option.exists(Cause.failureOption(exit.cause), Predicate.isTagged("KernelBuildFailed"))
        ? Effect.void
        : Effect.flatMap(FileSystem.FileSystem, (fs) => Effect.ignore(fs.remove(log, { force: true })))
  )

/** The compilers' temporary files, beside `out`. */
const TEMPORARY = "tmp"

/** A build of `tree` in `out`, whose output goes to `log`. */
interface Job {
  readonly tree: string
  /** A `.config` to start from. */
  readonly config: string | undefined
  readonly out: string
  readonly log: string
  readonly jobs: number
}

const prepare = ({ log, out }: Job): Effect.Effect<void, PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    yield* makeDirectories(dirname(log))
    yield* fs.writeFileString(log, "")
    yield* fs.makeDirectory(out)
    yield* fs.makeDirectory(join(out, "..", TEMPORARY))
  })

/** The environment of kbuild. Variables of the user's shell would change the kernel. */
const environment = (out: string): Record<string, string | undefined> => ({
  PATH: process.env["PATH"],
  HOME: process.env["HOME"],
  // what compilers leave there where they are killed goes with the build
  TMPDIR: join(out, "..", TEMPORARY),
  LC_ALL: "C",
  // in the banner of every kernel, which is therefore the same wherever and whenever it is built
  KBUILD_BUILD_USER: "ktstr",
  KBUILD_BUILD_HOST: "localhost",
  KBUILD_BUILD_VERSION: "1",
  KBUILD_BUILD_TIMESTAMP: "Thu Jan  1 00:00:00 UTC 1970"
})

const make = (
  step: "configure" | "compile",
  { jobs, log, out, tree }: Job,
  ...targets: ReadonlyArray<string>
): Effect.Effect<void, KernelBuildFailed, CommandExecutor.CommandExecutor | FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const words = ["make", "-C", tree, `O=${out}`, `-j${jobs}`, ...targets]
    const code = yield* runGroup("sh", ["-c", "exec \"$@\" >>\"$0\" 2>&1", log, ...words], environment(out))
    if (code === 0) return
    const output = yield* Effect.orElseSucceed(fs.readFileString(log), () => "")
    return yield* new KernelBuildFailed({ step, why: firstError(output), hint: `make's full output is in ${log}` })
  })

/** How compilers, linkers, shells, make and a full disk begin their complaints; the first in the list that occurs counts. */
const COMPLAINTS = [
  /^.*\b(?:error: |undefined reference to |No space left on device).*$/im,
  /^.*: (?:not found|No such file or directory)$/m,
  /^.*\*\*\* \S.*$/m
]

const firstError = (output: string): string => {
  for (const complaint of COMPLAINTS) {
    const line = complaint.exec(output)?.[0].trim()
    if (line !== undefined) return line
  }
  return lastLine(output) || "make said nothing"
}

const configure = (
  job: Job,
  asked: ReadonlyMap<string, string>,
  extra: string | undefined
): Effect.Effect<
  void,
  KernelBuildFailed | KconfigInvalid | KconfigUnmet | CacheError,
  CommandExecutor.CommandExecutor | FileSystem.FileSystem
> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const file = join(job.out, ".config")
    const fragment = mergeKconfig(TEST_KCONFIG, extra)
    yield* job.config === undefined
      ? make("configure", job, "tinyconfig")
      : Effect.mapError(fs.copyFile(job.config, file), refused(file))
    yield* Effect.mapError(fs.writeFileString(file, `\n${fragment}\n`, { flag: "a" }), refused(file))
    yield* make("configure", job, "olddefconfig")
    const granted = parseConfig(yield* Effect.mapError(fs.readFileString(file), refused(file)))
    const missing = unmet(yield* parseFragment(fragment), granted)
    const theirs = missing.filter(({ option }) => asked.has(option))
    if (theirs.length > 0) {
      return yield* new KconfigUnmet({
        options: theirs,
        hint: "set the options they depend on too, or leave them out: this kernel may not have them"
      })
    }
    const essential = missing.filter(({ option }) => ESSENTIAL_OPTIONS.has(option))
    if (essential.length > 0) {
      return yield* new KconfigUnmet({
        options: essential,
        hint: "ktstr cannot read a kernel without them: build a newer kernel, or update pahole"
      })
    }
    if (missing.length > 0) yield* Effect.logWarning(`this kernel's configuration did not take ${describe(missing)}`)
  })

const VMLINUX = "vmlinux"
const IMAGE = "bzImage"

/** Put what was built where it belongs. */
const deliver = (root: string, job: Job, identity: SourceIdentity, request: BuildRequest) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const image = join(job.out, "arch/x86/boot/bzImage")
    const release = yield* releaseOf(yield* Effect.mapError(fs.readFile(image), refused(image)), basename(image))
    const fill = (directory: string, config: string) =>
      Effect.zipRight(
        strip(join(job.out, VMLINUX), join(directory, VMLINUX)),
        Effect.mapError(
          Effect.zipRight(
            fs.copyFile(image, join(directory, IMAGE)),
            fs.copyFile(join(job.out, ".config"), join(directory, config))
          ),
          (error) => new KernelBuildFailed({ step: "store", why: error.message, hint: "make room for it" })
        )
      )
    if (identity._tag === "Storable") {
      const contents = {
        source: identity.source,
        release,
        image: IMAGE,
        vmlinux: VMLINUX,
        config: "config",
        kconfigHash: kconfigHash(),
        extraKconfigHash: request.extraKconfig === undefined ? null : extraKconfigHash(request.extraKconfig)
      }
      const entry = yield* storeKernel(
        root,
        identity.key,
        (directory) => Effect.as(fill(directory, "config"), contents),
        { replace: true }
      )
      return { _tag: "Stored", entry, fresh: true } as const
    }
    // what a kernel says of itself may not lead to another directory
    const directory = resolve(request.output ?? `ktstr-build-${release.replaceAll(/[^\w.+~-]/g, "_")}`)
    const unusable = (why: string) =>
      new KernelBuildFailed({ step: "store", why, hint: "name another directory for it" })
    const { type } = yield* Effect.mapError(
      Effect.zipRight(makeDirectories(directory), fs.stat(directory)),
      (error) => unusable(error.message)
    )
    if (type !== "Directory") return yield* unusable(`${directory} is not a directory`)
    yield* fill(directory, ".config")
    return { _tag: "NotStored", directory, release, why: identity.why } as const
  })

/**
 * A vmlinux without its debug info, a tenth of the size: .symtab, .strtab, .BTF and .rodata, which holds the config
 * (CONFIG_IKCONFIG), stay, and so does .data, because a VM can boot the file itself.
 */
const strip = (vmlinux: string, target: string) =>
  stage("strip", "KernelBuild.strip")(Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const failed = (why: string) =>
      new KernelBuildFailed({ step: "strip", why, hint: "build it with the binutils and pahole of one distribution" })
    const done = yield* runToEnd("strip", ["--strip-debug", "-o", target, vmlinux], "run `apt-get install binutils`")
    if (done.code !== 0) return yield* failed(lastLine(done.stderr))
    const bytes = yield* Effect.mapError(fs.readFile(target), (error) => failed(error.message))
    const elf = yield* parsing(() => parseElf(bytes, target))
    for (const name of [".symtab", ".BTF"]) {
      if (elf.section(name) === undefined) return yield* failed(`the vmlinux that was built has no ${name}`)
    }
  }))
