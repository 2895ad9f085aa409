import * as FileSystem from "@effect/platform/FileSystem"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { parseElf } from "../core/Elf.ts"
import { type FormatError, parsing } from "../core/Errors.ts"
import { isBzImage, isElf, vmlinuxOf } from "../core/KernelImage.ts"
import { Btf } from "./Btf.ts"

/** A file that yields no BTF: it cannot be read, is none of the formats that hold BTF, or is one without it. */
export class BtfLoadError extends Schema.TaggedError<BtfLoadError>("ktstr/BtfLoadError")("BtfLoadError", {
  path: Schema.String,
  reason: Schema.Literal("Unreadable", "NotRecognised", "NoBtf"),
  why: Schema.String
}) {
  override get message() {
    return `${this.path}: ${this.why}`
  }
}

/** Reads the BTF out of files. */
export class BtfLoader extends Context.Tag("ktstr/btf/BtfLoader")<BtfLoader, {
  /**
   * The BTF of a raw blob (as `/sys/kernel/btf/vmlinux`), of an ELF file with a `.BTF` section (vmlinux, module, BPF
   * object), or of the vmlinux inside a bzImage. A module's needs the `base` that it continues.
   */
  readonly load: (path: string, base?: Btf) => Effect.Effect<Btf, BtfLoadError | FormatError>
}>() {
  static readonly layer: Layer.Layer<BtfLoader, never, FileSystem.FileSystem> = Layer.effect(
    BtfLoader,
    Effect.map(FileSystem.FileSystem, (files) => ({
      load: Effect.fn("BtfLoader.load")(function*(path: string, base?: Btf) {
        const bytes = yield* readFile(files, path)
        return yield* Btf.parse(
          yield* sectionOf(bytes, path),
          base === undefined ? { subject: path } : { subject: path, base }
        )
      })
    }))
  )
}

const readFile = (files: FileSystem.FileSystem, path: string): Effect.Effect<Uint8Array, BtfLoadError> =>
  Effect.gen(function*() {
    // A pipe or a device might never end.
    const { type } = yield* files.stat(path)
    if (type !== "File") {
      return yield* new BtfLoadError({ path, reason: "Unreadable", why: `a regular file is needed, this is a ${type}` })
    }
    return yield* files.readFile(path)
  }).pipe(
    Effect.catchTags({
      BadArgument: (error) => unreadable(path, error.message),
      SystemError: (error) => unreadable(path, REASONS[error.reason] ?? error.description ?? error.reason)
    })
  )

const REASONS: { readonly [reason: string]: string } = {
  NotFound: "no such file",
  PermissionDenied: "permission denied: run this as a user who may read it"
}

const unreadable = (path: string, why: string): BtfLoadError => new BtfLoadError({ path, reason: "Unreadable", why })

const sectionOf = (bytes: Uint8Array, path: string): Effect.Effect<Uint8Array, BtfLoadError | FormatError> =>
  Effect.gen(function*() {
    const magic = bytes.length < 2 ? 0 : bytes[0] << 8 | bytes[1]
    // Big-endian BTF too: the parser says clearly what it is.
    if (magic === 0x9feb || magic === 0xeb9f) return bytes
    if (!isElf(bytes) && !isBzImage(bytes)) {
      const why =
        "neither raw BTF nor an ELF file nor a bzImage; give a vmlinux, a kernel image or /sys/kernel/btf/vmlinux"
      return yield* new BtfLoadError({ path, reason: "NotRecognised", why })
    }
    const vmlinux = yield* vmlinuxOf(bytes, path)
    const section = yield* parsing(() => {
      const elf = parseElf(vmlinux, path)
      const found = elf.section(".BTF")
      // A copy, so that the rest of a large file can go.
      return found === undefined ? undefined : new Uint8Array(elf.data(found))
    })
    if (section !== undefined && section.length > 0) return section
    const why = "no .BTF section; build the kernel with CONFIG_DEBUG_INFO_BTF=y, or a BPF object with clang -g"
    return yield* new BtfLoadError({ path, reason: "NoBtf", why })
  })
