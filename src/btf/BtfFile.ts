import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import { FormatError, parsing } from "../core/FormatError.ts"
import { buildIdOf } from "../core/image/BuildId.ts"
import { parseElf, SegmentType } from "../core/image/Elf.ts"
import { isArm64Image, isBzImage, isElf, vmlinuxOf } from "../core/image/KernelImage.ts"
import { longestBlobIn } from "./BtfHeader.ts"

/** The state of a file, told from another state without reading its contents. */
export interface Stamp {
  /** When the file was last changed, in milliseconds since 1970. */
  readonly mtime: number
  /** In bytes. */
  readonly size: number
  /** `build-id:HEX` of an ELF file, `bzImage:HEX` of an image. */
  readonly identity: string
}

/**
 * An open file that may hold BTF, of which only the first bytes are read so far. `section` gives a copy of its BTF,
 * `base` of the distilled base that this continues (`.BTF.base`), undefined where it has none; `stamp` what its contents
 * are known by, undefined for an ELF file without a build id and an arm64 `Image`.
 */
export type BtfFile =
  | { readonly kind: "raw"; readonly section: Read<Uint8Array> }
  | {
    readonly kind: "image"
    readonly section: Read<Uint8Array | undefined>
    readonly base: Read<Uint8Array | undefined>
    readonly stamp: Read<Stamp | undefined>
  }
  | { readonly kind: "other" }

type Read<A> = Effect.Effect<A, PlatformError | FormatError>

/** Enough for a bzImage's setup header and its kernel_version string. */
const HEAD = 64 * 1024
/** The end of a bzImage's payload that its identity covers. */
const TAIL = 64 * 1024

/** Open a regular file; it closes with the scope. */
export const openBtfFile = (
  path: string
): Effect.Effect<BtfFile, PlatformError | FormatError, FileSystem.FileSystem | Scope.Scope> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const file = yield* files.open(path)
    const head = yield* bytesAt(file, 0, HEAD)
    const magic = head.length < 2 ? 0 : head[0] << 8 | head[1]
    // Big-endian BTF too: the parser says clearly what it is.
    if (magic === 0x9feb || magic === 0xeb9f) return { kind: "raw", section: files.readFile(path) }
    const stamped = (identity: Read<string | undefined>): Read<Stamp | undefined> =>
      Effect.gen(function*() {
        const { mtime, size } = yield* file.stat
        const is = yield* identity
        return is === undefined || Option.isNone(mtime)
          ? undefined
          : { mtime: mtime.value.getTime(), size: Number(size), identity: is }
      })
    if (isElf(head)) {
      const elf = yield* openElf(file, path)
      return {
        kind: "image",
        section: elf.section(".BTF"),
        base: elf.section(".BTF.base"),
        stamp: stamped(Effect.map(elf.buildId, (id) => id === undefined ? undefined : `build-id:${id}`))
      }
    }
    if (isArm64Image(head)) {
      return {
        kind: "image",
        section: Effect.map(files.readFile(path), (bytes) => longestBlobIn(bytes)?.slice()),
        base: Effect.succeed(undefined),
        stamp: Effect.succeed(undefined)
      }
    }
    if (!isBzImage(head)) return { kind: "other" }
    return {
      kind: "image",
      section: Effect.gen(function*() {
        const vmlinux = yield* vmlinuxOf(yield* files.readFile(path), path)
        return yield* parsing(() => {
          const elf = parseElf(vmlinux, path)
          const found = elf.section(".BTF")
          return found === undefined ? undefined : new Uint8Array(elf.data(found))
        })
      }),
      base: Effect.succeed(undefined),
      stamp: stamped(bzImageIdentity(file, head))
    }
  })

/**
 * A bzImage has no build id that is cheap to read. Its setup holds the release and the build's number, user and date;
 * its payload ends in the compressor's checksum (gzip, xz, zstd as the kernel's build calls them) and the size of the
 * kernel inside: those pieces, hashed.
 * @see Documentation/arch/x86/boot.rst, v6.12: setup_sects, payload_offset, payload_length
 */
const bzImageIdentity = (file: FileSystem.File, head: Uint8Array): Read<string> =>
  Effect.gen(function*() {
    const view = new DataView(head.buffer, head.byteOffset, head.byteLength)
    const setupSectors = head[0x1f1] === 0 ? 4 : head[0x1f1]
    const payloadEnd = (setupSectors + 1) * 512 + view.getUint32(0x248, true) + view.getUint32(0x24c, true)
    const tail = yield* bytesAt(file, Math.max(0, payloadEnd - TAIL), TAIL)
    return `bzImage:${createHash("sha1").update(head).update(tail).digest("hex")}`
  })

/** No larger ELF file is looked into: a vmlinux with all its DWARF has about a gigabyte. */
const MAX_ELF = 2 ** 32 - 1

/**
 * An ELF file of which only the headers are read, to their places in a buffer as large as the file, because the parser
 * takes a whole file. The system backs no page of it that nobody touches, so a gigabyte of DWARF beside the headers
 * costs nothing.
 */
const openElf = (file: FileSystem.File, path: string) =>
  Effect.gen(function*() {
    const size = Number((yield* file.stat).size)
    const broken = (offset: number, expected: string) =>
      new FormatError({ format: "ELF", subject: path, offset, expected })
    if (size > MAX_ELF) return yield* broken(0, `a file of less than 4 GiB, not ${size} bytes`)
    const bytes = new Uint8Array(size)
    const fill = (offset: number, length: number) => readInto(file, offset, bytes.subarray(offset, offset + length))
    yield* fill(0, 64)
    // Places and counts as `parseElf` takes them; it says what is wrong with them.
    const view = new DataView(bytes.buffer)
    const number = (width: 2 | 4 | 8, at: number): number =>
      at + width > size
        ? 0
        : width === 2
        ? view.getUint16(at, true)
        : width === 4
        ? view.getUint32(at, true)
        : Number(view.getBigUint64(at, true))
    const sections = number(8, 40)
    yield* fill(sections, 64)
    const [segmentCount, sectionCount, names] = [number(2, 56), number(2, 60), number(2, 62)]
    yield* fill(number(8, 32), (segmentCount === 0xffff ? number(4, sections + 44) : segmentCount) * 56)
    yield* fill(sections, (sectionCount || number(8, sections + 32)) * 64)
    const nameTable = sections + (names === 0xffff ? number(4, sections + 40) : names) * 64
    yield* fill(number(8, nameTable + 24), number(8, nameTable + 32))
    const elf = yield* parsing(() => parseElf(bytes, path))
    return {
      section: (name: string): Read<Uint8Array | undefined> =>
        Effect.gen(function*() {
          const found = elf.section(name)
          if (found === undefined) return undefined
          const data = yield* parsing(() => elf.data(found))
          if ((yield* readInto(file, found.offset, data)) < data.length) {
            return yield* broken(found.offset, `the ${data.length} bytes of section ${name}: the file has been cut`)
          }
          return new Uint8Array(data)
        }),
      buildId: Effect.gen(function*() {
        for (const { filesz, offset, type } of elf.segments) if (type === SegmentType.Note) yield* fill(offset, filesz)
        return buildIdOf(elf)
      })
    }
  })

const bytesAt = (file: FileSystem.File, offset: number, length: number): Effect.Effect<Uint8Array, PlatformError> => {
  const bytes = new Uint8Array(length)
  return Effect.map(readInto(file, offset, bytes), (filled) => bytes.subarray(0, filled))
}

/** read(2) moves no more than 2 GiB. */
const MOST_AT_ONCE = 2 ** 30

/** Read until `bytes` is full or the file ends; gives how many there were. */
const readInto = (
  file: FileSystem.File,
  offset: number,
  bytes: Uint8Array
): Effect.Effect<number, PlatformError> =>
  Effect.gen(function*() {
    yield* file.seek(offset, "start")
    let filled = 0
    while (filled < bytes.length) {
      const read = Number(yield* file.read(bytes.subarray(filled, filled + MOST_AT_ONCE)))
      if (read === 0) break
      filled += read
    }
    return filled
  })
