import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { release } from "node:os"
import { join } from "node:path"
import { cacheRoot } from "../CacheDir.ts"
import { KernelIdInvalid } from "../Errors.ts"
import { parsing } from "../FormatError.ts"
import { parseElf } from "../image/Elf.ts"
import type { Native } from "../Native.ts"
import { kconfigHash } from "./cache/CacheKey.ts"
import { listEntries } from "./cache/KernelCache.ts"
import type { DebianKernelError } from "./debian/DebianKernel.ts"
import { withUnpacked } from "./debian/UnpackedKernel.ts"
import { artifactsOf, type KernelArtifacts } from "./KernelArtifacts.ts"
import { parseKernelId } from "./KernelId.ts"
import { kernelOfId } from "./KernelOfId.ts"
import { kernelAtPath } from "./KernelPath.ts"

/**
 * Where to look: `root` holds `boot` and `lib/modules`, `directory` may hold a kernel tree; both absolute.
 *
 * @since 0.1.0
 * @category models
 */
export interface HostPlace {
  readonly root: string
  readonly directory: string
  /** `uname -r` of the running kernel. */
  readonly release: string
}

const invalid = (id: string, why: string): KernelIdInvalid => new KernelIdInvalid({ given: "KTSTR_KERNEL", id, why })

const thisHost = (): HostPlace => ({ root: "/", directory: process.cwd(), release: release() })

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem | Native

/**
 * A kernel to boot when none is asked for. Finding none is not an error:
 * 1. what `KTSTR_KERNEL` names. A path must lead to a kernel, and for a version or a cache key there must be a cache, else
 *    it fails; so do a range and a git source, which may mean several. A version or a key that the cache does not hold
 *    goes on to 3: another kernel of the cache never takes its place.
 * 2. the x86-64 kernel of the cache that was stored last, corrupt and stale ones aside, and such with an unusable vmlinux
 * 3. a build tree: `./linux`, `../linux`, `/lib/modules/RELEASE/build`
 * 4. the host's kernel: `/lib/modules/RELEASE/vmlinuz`, `/boot/vmlinuz-RELEASE`, `/boot/vmlinuz`
 *
 * @since 0.1.0
 * @category reading
 */
export const findKernel = Effect.fn("FindKernel.findKernel")(
  function*(
    place: HostPlace = thisHost()
  ): Effect.fn.Return<Option.Option<KernelArtifacts>, KernelIdInvalid | DebianKernelError, Host> {
    const named = yield* kernelVariable
    const found = yield* Option.match(named, {
      onNone: () => newestCached,
      onSome: (value) => fromVariable(value, place.root)
    })
    return Option.isSome(found) ? found : yield* onFileSystem(place)
  }
)

/** `KTSTR_KERNEL` without the blanks around it; a blank one counts as absent. */
export const kernelVariable: Effect.Effect<Option.Option<string>, KernelIdInvalid> = Config.string("KTSTR_KERNEL")
  .pipe(
    Config.option,
    Effect.mapBoth({
      onFailure: (error) => invalid("", String(error)),
      onSuccess: (value) => Option.filter(Option.map(value, (text) => text.trim()), (text) => text !== "")
    })
  )

const fromVariable = (
  value: string,
  root: string
): Effect.Effect<Option.Option<KernelArtifacts>, KernelIdInvalid | DebianKernelError, Host> =>
  Effect.gen(function*() {
    const refused = (error: { readonly message: string }) => invalid(value, error.message)
    const id = yield* Effect.mapError(parseKernelId(value), ({ why }) => invalid(value, why))
    if (id._tag === "Range" || id._tag === "DebianRange" || id._tag === "Git") {
      return yield* invalid(
        value,
        "the variable names one kernel, not a range or a git source; set it to a version, a cache key, a path or " +
          "debian:…, or use --kernel"
      )
    }
    return yield* Effect.map(kernelOfId(id, root), Option.some).pipe(
      Effect.catchTags({
        KernelIdInvalid: (error) => Effect.fail(refused(error)),
        KernelNotFound: (error) =>
          error.where === "cache"
            ? Effect.as(Effect.logDebug(error.message), Option.none())
            : Effect.fail(error.where === "path" ? refused(error) : error),
        FormatError: (error) => Effect.fail(refused(error)),
        CacheError: (error) => Effect.fail(id._tag === "Debian" ? error : refused(error)),
        KernelEntryCorrupt: (error) => Effect.as(Effect.logWarning(error.message), Option.none())
      })
    )
  })

const newestCached: Effect.Effect<Option.Option<KernelArtifacts>, never, Host> = Effect.gen(
  function*() {
    const fs = yield* FileSystem.FileSystem
    for (const entry of yield* listEntries(yield* cacheRoot)) {
      if (entry._tag === "Corrupt" || entry.metadata.arch !== "x86_64") continue
      const { kconfigHash: hash } = entry.metadata
      if (hash !== null && hash !== kconfigHash()) continue
      const artifacts = artifactsOf(entry)
      // another process may have cleaned the cache since it was listed
      if (!(yield* Effect.orElseSucceed(fs.exists(artifacts.image), () => false))) continue
      const fault = artifacts.vmlinux === undefined ? undefined : yield* faultOf(artifacts.vmlinux)
      if (fault === undefined) return Option.some(artifactsOf(yield* withUnpacked(entry)))
      yield* Effect.logWarning(`skipping cached kernel ${entry.key}: its vmlinux ${fault}`)
    }
    return Option.none()
  }
).pipe(
  Effect.catchTag("CacheError", (error) => Effect.as(Effect.logWarning(error.message), Option.none()))
)

/** Without these nothing finds the run queues and types of the kernel: kernel/sched/core.c, mm/percpu.c, v6.12. */
const SECTIONS = [".symtab", ".BTF"]
const SYMBOLS = ["runqueues", "__per_cpu_offset"]

/** Why a vmlinux cannot serve, or undefined. */
const faultOf = (path: string): Effect.Effect<string | undefined, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const bytes = yield* fs.readFile(path)
    const lacks = yield* parsing(() => {
      const elf = parseElf(bytes, path)
      const sections = SECTIONS.filter((name) => elf.section(name) === undefined)
      return sections.length > 0 ? sections : SYMBOLS.filter((name) => !elf.symbols().has(name))
    })
    return lacks.length === 0 ? undefined : `lacks ${lacks.join(" and ")}`
  }).pipe(Effect.catchAll((error) => Effect.succeed(`cannot be used: ${error.message}`)))

const onFileSystem = (
  { directory, release, root }: HostPlace
): Effect.Effect<Option.Option<KernelArtifacts>, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    for (
      const path of [
        join(directory, "linux"),
        join(directory, "../linux"),
        join(root, "lib/modules", release, "build"),
        join(root, "lib/modules", release, "vmlinuz"),
        join(root, "boot", `vmlinuz-${release}`),
        join(root, "boot/vmlinuz")
      ]
    ) {
      const found = yield* Effect.either(kernelAtPath(path, root))
      if (found._tag === "Right") return Option.some(found.right)
      yield* Effect.logDebug(found.left.message)
    }
    return Option.none()
  })
