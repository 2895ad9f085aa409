import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { join, resolve as absolute } from "node:path"
import type { CacheError } from "./CacheDir.ts"
import { debianKernel, type KernelFetchFailed, type KernelPackageMissing } from "./DebianKernel.ts"
import type { FormatError, HostLacks } from "./Errors.ts"
import { type DebianSelector, type KernelIdInvalid, parseKernelId } from "./KernelId.ts"
import { bannerRelease, isBzImage, isElf, releaseOf } from "./KernelImage.ts"

/** The files of one kernel; paths are absolute. */
export interface KernelArtifacts {
  /** `uname -r` of the kernel. */
  readonly release: string
  /** What a VM boots: a bzImage or a vmlinux. */
  readonly image: string
  /** The uncompressed kernel with symbols, where there is one; a distribution's image package has none. */
  readonly vmlinux?: string
  /** The build's `.config`, where it is known. */
  readonly config?: string
  /** Where the kernel came from, for people: a package and its version, or the path that was given. */
  readonly source: string
}

/** A path id that leads to no kernel. */
export class KernelNotFound extends Schema.TaggedError<KernelNotFound>("ktstr/KernelNotFound")("KernelNotFound", {
  path: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `no kernel at ${this.path}: ${this.why}; give a bzImage, a vmlinux, or a directory that holds one`
  }
}

/** All that resolving an id can fail with. */
export type ResolveError =
  | KernelIdInvalid
  | KernelNotFound
  | FormatError
  | CacheError
  | HostLacks
  | KernelPackageMissing
  | KernelFetchFailed

/** Finds, and where need be fetches, the kernel that an id means. See `KernelId` for the ids. */
export class KernelResolver extends Context.Tag("ktstr/core/KernelResolver")<KernelResolver, {
  readonly resolve: (id: string) => Effect.Effect<KernelArtifacts, ResolveError>
}>() {
  /** Answers with fixed artifacts, whatever the id. */
  static readonly layerTest = (artifacts: KernelArtifacts): Layer.Layer<KernelResolver> =>
    Layer.succeed(KernelResolver, { resolve: () => Effect.succeed(artifacts) })
}

type Host = CommandExecutor.CommandExecutor | FileSystem.FileSystem

/** Resolves on this host: its files, its apt, and the cache of `cacheRoot`. */
export const layer: Layer.Layer<KernelResolver, never, Host> = Layer.effect(
  KernelResolver,
  Effect.map(Effect.context<Host>(), (host) => ({
    resolve: Effect.fn("KernelResolver.resolve")(
      function*(text: string): Effect.fn.Return<KernelArtifacts, ResolveError, Host> {
        const id = yield* parseKernelId(text)
        return yield* id._tag === "Path" ? fromPath(id.path) : fromDebian(id.selector)
      },
      Effect.provide(host)
    )
  }))
)

const fromDebian = (selector: DebianSelector): Effect.Effect<KernelArtifacts, ResolveError, Host> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const { directory, metadata } = yield* debianKernel(selector)
    const config = join(directory, "config")
    const hasConfig = yield* Effect.orElseSucceed(fs.exists(config), () => false)
    return {
      release: metadata.release,
      image: join(directory, "vmlinuz"),
      ...(hasConfig ? { config } : {}),
      source: `Debian package ${metadata.package} ${metadata.version}`
    }
  })

/** Where a kernel image is in a directory: a build tree first, then a plain folder of kernels. */
const IMAGES = ["arch/x86/boot/bzImage", "bzImage", "vmlinuz", "vmlinux"]

const fromPath = (written: string): Effect.Effect<KernelArtifacts, ResolveError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* expandHome(written)
    const failed = (why: string) => new KernelNotFound({ path, why })
    const info = yield* Effect.mapError(fs.stat(path), (error) =>
      failed(
        error._tag === "SystemError" && error.reason === "NotFound"
          ? "there is no such file or directory"
          : error.message
      ))
    if (info.type !== "Directory" && info.type !== "File") return yield* failed("it is neither a file nor a directory")
    if (info.type === "File") {
      return { release: yield* releaseOfFile(path, failed), image: path, source: path }
    }
    const there: Array<string> = []
    for (const name of IMAGES) {
      if (yield* Effect.orElseSucceed(fs.exists(join(path, name)), () => false)) there.push(join(path, name))
    }
    const image = there.at(0)
    if (image === undefined) return yield* failed(`the directory holds none of ${IMAGES.join(", ")}`)
    const vmlinux = there.find((file) => file.endsWith("/vmlinux"))
    const config = join(path, ".config")
    const hasConfig = yield* Effect.orElseSucceed(fs.exists(config), () => false)
    return {
      release: yield* releaseOfFile(image, failed),
      image,
      ...(vmlinux === undefined ? {} : { vmlinux }),
      ...(hasConfig ? { config } : {}),
      source: path
    }
  })

const expandHome = (path: string): Effect.Effect<string, KernelNotFound> =>
  path !== "~" && !path.startsWith("~/")
    ? Effect.succeed(absolute(path))
    : Config.option(Config.nonEmptyString("HOME")).pipe(
      Effect.orElseSucceed(() => Option.none<string>()),
      Effect.flatMap(Option.match({
        onNone: () => new KernelNotFound({ path, why: "HOME is not set, so ~ means nothing" }),
        onSome: (home) => Effect.succeed(absolute(home, `.${path.slice(1)}`))
      }))
    )

const PIECE = 4 * 2 ** 20
const BANNER_OVERLAP = 512

/** The release of a kernel file, of which no more is read than that takes: an ELF kernel with DWARF has a gigabyte. */
const releaseOfFile = (path: string, failed: (why: string) => KernelNotFound) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const file = yield* fs.open(path)
    const piece = new Uint8Array(PIECE)
    const first = piece.subarray(0, Number(yield* file.read(piece)))
    if (isBzImage(first)) return yield* releaseOf(first, path)
    if (!isElf(first)) return yield* failed("the file is neither a bzImage nor an ELF vmlinux")
    let filled = first.length
    while (filled > BANNER_OVERLAP) {
      const release = bannerRelease(piece.subarray(0, filled))
      if (release !== undefined) return release
      piece.copyWithin(0, filled - BANNER_OVERLAP, filled) // the banner may straddle two pieces
      filled = BANNER_OVERLAP + Number(yield* file.read(piece.subarray(BANNER_OVERLAP)))
      if (filled === BANNER_OVERLAP) break
    }
    return yield* failed("the ELF file holds no \"Linux version\" banner, so it is no kernel")
  }).pipe(
    Effect.scoped,
    Effect.catchTags({
      BadArgument: (error) => Effect.fail(failed(error.message)),
      SystemError: (error) => Effect.fail(failed(error.description ?? error.message))
    })
  )
