import * as FileSystem from "@effect/platform/FileSystem"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { isPlatformError, platformText, reasonOf } from "../core/Errors.ts"
import type { FormatError } from "../core/FormatError.ts"
import { Btf } from "./Btf.ts"
import { type BtfFile, openBtfFile } from "./BtfFile.ts"
import { relocateBase } from "./RelocateBase.ts"
import { damaged, readSidecar, sidecarOf, writeSidecar } from "./Sidecar.ts"

/**
 * A file that yields no BTF: it cannot be read, is not in a format that holds BTF, or has none.
 *
 * @since 0.1.0
 * @category errors
 */
export class BtfLoadError extends Schema.TaggedError<BtfLoadError>("ktstr/BtfLoadError")("BtfLoadError", {
  path: Schema.String,
  reason: Schema.Literal("Unreadable", "NotRecognised", "NoBtf"),
  why: Schema.String
}) {
  override get message() {
    return `${this.path}: ${this.why}`
  }
}

/**
 * The service behind the tag `BtfLoader`.
 *
 * @since 0.1.0
 * @category models
 */
export interface BtfLoaderService {
  /**
   * The BTF of a raw blob (as `/sys/kernel/btf/vmlinux`), of an ELF file with a `.BTF` section (vmlinux, module, BPF
   * object), or of the vmlinux inside a bzImage. A module's needs the `base` that it continues. One that was built
   * outside of its kernel's tree brings a distilled base, which is matched with `base`, or stands for it where none is
   * given.
   *
   * The BTF of a kernel in the cache is kept beside it as `<file>.btf`, and read from there as long as it is of the
   * file's present time, size and build id: of the kernel itself no more than its headers is read then.
   */
  readonly load: (path: string, base?: Btf) => Effect.Effect<Btf, BtfLoadError | FormatError>
  /** The same, and the blob that it was parsed from: borrowed, it must not change. */
  readonly read: (path: string, base?: Btf) => Effect.Effect<Loaded, BtfLoadError | FormatError>
}

/**
 * Reads the BTF out of files.
 *
 * @since 0.1.0
 * @category services
 */
export class BtfLoader extends Context.Tag("ktstr/btf/BtfLoader")<BtfLoader, BtfLoaderService>() {
  static readonly layer: Layer.Layer<BtfLoader, never, FileSystem.FileSystem> = Layer.effect(
    BtfLoader,
    Effect.map(Effect.context<FileSystem.FileSystem>(), (context) => {
      const read = (path: string, base?: Btf) =>
        readPath(path, base).pipe(
          Effect.scoped,
          Effect.catchIf(
            isPlatformError,
            (error) => unreadable(path, REASONS[reasonOf(error) ?? ""] ?? platformText(error))
          ),
          Effect.provide(context)
        )
      return { read, load: (path, base) => Effect.map(read(path, base), ({ btf }) => btf) }
    })
  )
}

/**
 * BTF and the bytes that it lies in.
 *
 * @since 0.1.0
 * @category models
 */
export interface Loaded {
  readonly btf: Btf
  readonly bytes: Uint8Array
}

const readPath = Effect.fn("BtfLoader.read")(function*(path: string, base?: Btf) {
  const parse = (bytes: Uint8Array): Either.Either<Loaded, FormatError> =>
    Either.map(
      Btf.parse(bytes, base === undefined ? { subject: path } : { subject: path, base }),
      (btf) => ({ btf, bytes })
    )
  const file = yield* open(path)
  if (file.kind === "raw") return yield* parse(yield* file.section)

  const distilled = yield* file.base
  if (distilled !== undefined && distilled.length > 0) {
    const own = yield* Btf.parse(distilled, { subject: `${path} .BTF.base` })
    const section = yield* sectionOf(file, path)
    const bytes = base === undefined ? section : yield* relocateBase(section, own, base, path)
    return { bytes, btf: yield* Btf.parse(bytes, { subject: path, base: base ?? own }) }
  }

  const stamp = yield* file.stamp
  const sidecar = stamp === undefined ? Option.none() : yield* sidecarOf(path)
  if (stamp === undefined || Option.isNone(sidecar)) return yield* parse(yield* sectionOf(file, path))
  const kept = Option.map(yield* readSidecar(sidecar.value, stamp), parse)
  if (Option.isSome(kept)) {
    if (Either.isRight(kept.value)) return kept.value.right
    yield* damaged(sidecar.value, kept.value.left.message)
  }
  const loaded = yield* parse(yield* sectionOf(file, path))
  // Not of a file that has changed meanwhile: which state of it this BTF is of is not known then.
  const after = yield* file.stamp
  if (after?.mtime === stamp.mtime && after.size === stamp.size && after.identity === stamp.identity) {
    yield* writeSidecar(sidecar.value, loaded.bytes, stamp)
  }
  return loaded
})

const open = (path: string) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    // A pipe or a device might never end.
    const { type } = yield* files.stat(path)
    if (type !== "File") return yield* unreadable(path, `a regular file is needed, this is a ${type}`)
    const file = yield* openBtfFile(path)
    if (file.kind !== "other") return file
    const why =
      "neither raw BTF nor an ELF file nor a bzImage nor an arm64 Image; give a vmlinux, a kernel image or /sys/kernel/btf/vmlinux"
    return yield* new BtfLoadError({ path, reason: "NotRecognised", why })
  })

const sectionOf = (file: Exclude<BtfFile, { kind: "other" }>, path: string) =>
  Effect.flatMap(file.section, (section) =>
    section !== undefined && section.length > 0
      ? Effect.succeed(section)
      : new BtfLoadError({
        path,
        reason: "NoBtf",
        why: "no .BTF section; build the kernel with CONFIG_DEBUG_INFO_BTF=y, or a BPF object with clang -g"
      }))

const REASONS: { readonly [reason: string]: string } = {
  NotFound: "no such file",
  PermissionDenied: "permission denied: run this as a user who may read it"
}

const unreadable = (path: string, why: string): BtfLoadError => new BtfLoadError({ path, reason: "Unreadable", why })
