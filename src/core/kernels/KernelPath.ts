import * as FileSystem from "@effect/platform/FileSystem"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { dirname, join, resolve as absolute } from "node:path"
import { isPlatformError, KernelNotFound, platformText, reasonOf } from "../Errors.ts"
import type { FormatError } from "../FormatError.ts"
import { bannerRelease, isArm64Image, isBzImage, isElf, releaseOf } from "../image/KernelImage.ts"
import type { KernelArtifacts } from "./KernelArtifacts.ts"

/** Where a kernel image is in a directory: a build tree first, then a plain folder of kernels. */
const IMAGES = ["arch/x86/boot/bzImage", "bzImage", "vmlinuz", "vmlinux"]

/**
 * The kernel at a path: an image, a vmlinux, or a directory that holds one. The vmlinux of an image is looked for beside
 * it, up to three directories above it (a build tree's), and where distributions put debug files; one of another release
 * does not count.
 * @param written may start with `~/`, and may be relative to the working directory
 * @param root the directory that holds `usr/lib/debug`
 * @since 0.1.0
 * @category reading
 */
export const kernelAtPath = Effect.fn("KernelPath.kernelAtPath")(
  function*(
    written: string,
    root = "/"
  ): Effect.fn.Return<KernelArtifacts, KernelNotFound | FormatError, FileSystem.FileSystem> {
    const fs = yield* FileSystem.FileSystem
    const path = yield* expandHome(written)
    const info = yield* Effect.mapError(
      fs.stat(path),
      (error) =>
        KernelNotFound.atPath(
          path,
          reasonOf(error) === "NotFound"
            ? "no such file or directory"
            : error.message
        )
    )
    if (info.type !== "Directory" && info.type !== "File") {
      return yield* KernelNotFound.atPath(path, "it is neither a file nor a directory")
    }
    const image = info.type === "File" ? path : yield* firstFile(IMAGES.map((name) => join(path, name)))
    if (image === undefined) {
      return yield* KernelNotFound.atPath(path, `the directory holds none of ${IMAGES.join(", ")}`)
    }
    const { isArm64, isVmlinux, release } = yield* inspect(image)
    const vmlinux = isVmlinux ? image : isArm64 ? undefined : yield* vmlinuxBeside(image, release, root)
    const config = yield* firstFile([
      ...(info.type === "Directory" ? [join(path, ".config")] : []),
      join(dirname(vmlinux ?? image), ".config"),
      join(dirname(image), `config-${release}`)
    ])
    const modules = yield* firstDirectory(
      ["lib/modules", "usr/lib/modules"].map((name) => join(root, name, release, "kernel"))
    )
    return {
      release,
      ...(isArm64 ? { arch: "arm64" as const } : {}),
      image,
      ...(modules === undefined ? {} : { modules: dirname(modules) }),
      ...(vmlinux === undefined ? {} : { vmlinux }),
      ...(config === undefined ? {} : { config }),
      source: path
    }
  }
)

const firstFile = (paths: ReadonlyArray<string>) => firstOf("File", paths)
const firstDirectory = (paths: ReadonlyArray<string>) => firstOf("Directory", paths)

const firstOf = (
  wanted: "File" | "Directory",
  paths: ReadonlyArray<string>
): Effect.Effect<string | undefined, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    for (const path of paths) {
      const info = yield* Effect.option(fs.stat(path))
      if (Option.exists(info, ({ type }) => type === wanted)) return path
    }
    return undefined
  })

const vmlinuxBeside = (
  image: string,
  release: string,
  root: string
): Effect.Effect<string | undefined, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const above = ["", "..", "../..", "../../.."].map((up) => join(dirname(image), up, "vmlinux"))
    const debug = [`boot/vmlinux-${release}`, `lib/modules/${release}/vmlinux`]
    for (const path of [...above, ...debug.map((name) => join(root, "usr/lib/debug", name))]) {
      if ((yield* firstFile([path])) === undefined) continue
      const found = yield* Effect.either(inspect(path))
      if (found._tag === "Right" && found.right.isVmlinux && found.right.release === release) return path
      yield* Effect.logDebug(
        `${path} is not the vmlinux of ${image}: ` +
          (found._tag === "Left" ? found.left.message : `it is of release ${found.right.release}, not ${release}`)
      )
    }
    return undefined
  })

const expandHome = (path: string): Effect.Effect<string, KernelNotFound> =>
  path !== "~" && !path.startsWith("~/")
    ? Effect.succeed(absolute(path))
    : Config.option(Config.nonEmptyString("HOME")).pipe(
      Effect.orElseSucceed(() => Option.none<string>()),
      Effect.flatMap(Option.match({
        onNone: () => KernelNotFound.atPath(path, "HOME is not set, so ~ means nothing"),
        onSome: (home) => Effect.succeed(absolute(home, `.${path.slice(1)}`))
      }))
    )

const PIECE = 4 * 2 ** 20
const BANNER_OVERLAP = 512

/** The kind of a kernel file. Only the bytes needed for that are read: an ELF kernel with DWARF has a gigabyte. */
const inspect = (
  path: string
): Effect.Effect<
  { release: string; isVmlinux: boolean; isArm64: boolean },
  KernelNotFound | FormatError,
  FileSystem.FileSystem
> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const file = yield* fs.open(path)
    const piece = new Uint8Array(PIECE)
    const first = piece.subarray(0, Number(yield* file.read(piece)))
    if (isBzImage(first)) return { release: yield* releaseOf(first, path), isVmlinux: false, isArm64: false }
    const isArm64 = isArm64Image(first)
    if (!isArm64 && !isElf(first)) {
      return yield* KernelNotFound.atPath(path, "the file is neither a bzImage nor an ELF vmlinux nor an arm64 Image")
    }
    let filled = first.length
    while (filled > BANNER_OVERLAP) {
      const release = bannerRelease(piece.subarray(0, filled))
      if (release !== undefined) return { release, isVmlinux: !isArm64, isArm64 }
      piece.copyWithin(0, filled - BANNER_OVERLAP, filled) // the banner may straddle two pieces
      filled = BANNER_OVERLAP + Number(yield* file.read(piece.subarray(BANNER_OVERLAP)))
      if (filled === BANNER_OVERLAP) break
    }
    const kind = isArm64 ? "Image" : "ELF file"
    return yield* KernelNotFound.atPath(path, `the ${kind} holds no "Linux version" banner, so it is not a kernel`)
  }).pipe(
    Effect.scoped,
    Effect.catchIf(isPlatformError, (error) => KernelNotFound.atPath(path, platformText(error)))
  )
