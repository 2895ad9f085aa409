import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import { Buffer } from "node:buffer"
import { fstatSync } from "node:fs"
import type { SyscallError } from "../core/Errors.ts"
import { FormatError, parsing } from "../core/FormatError.ts"
import { Native } from "../core/Native.ts"
import { coreMemory, MAX_MEMORY } from "./cores/ElfCore.ts"
import { FLATTENED_SIGNATURE, unflatten } from "./cores/Flattened.ts"
import { type ImageFile, mappedFile, viewOf, WINDOW } from "./cores/ImageFile.ts"
import { kcoreMemory } from "./cores/Kcore.ts"
import { KDUMP_SIGNATURE, kdumpMemory } from "./cores/Kdump.ts"
import type { NotAKernel } from "./Errors.ts"
import { backingFile, GuestMemory, type MemoryRegion } from "./GuestMemory.ts"
import { HINT, type LocateKernel, notAnImage, rawMemory } from "./RawMemory.ts"

/** fcntl.h; without O_NONBLOCK opening a FIFO waits for its writer. */
const O_NONBLOCK = 0o4000
/** `struct lime_header`: magic, version 1, first and last address of the bytes that follow it, 8 bytes reserved. */
const LIME = "EMiL"
const LIME_HEADER = 32
/** More ranges of RAM than any machine has. */
const MAX_RANGES = 65536

/**
 * A file that holds a guest's physical memory, mapped read-only until the scope closes: a raw image (QEMU's
 * `memory-backend-file`, `pmemsave`), an ELF core (`dump-guest-memory`, kdump's `/proc/vmcore`), a kdump-compressed core
 * (makedumpfile, `dump-guest-memory -z`), these two flattened (`makedumpfile -F`), or a LiME dump. A file cut short is read as
 * far as it goes. It must not shrink while it is mapped: that is SIGBUS. `/proc/kcore` is not mapped but read: memory of a kernel
 * that runs on.
 *
 * @since 0.1.0
 * @category constructors
 */
export const openMemoryImage = (
  path: string,
  options: { readonly locate?: LocateKernel } = {}
): Effect.Effect<GuestMemory, SyscallError | NotAKernel | FormatError, Native | Scope.Scope> =>
  Effect.gen(function*() {
    const native = yield* Native
    const fd = yield* native.open(path, O_NONBLOCK)
    const stat = fstatSync(fd)
    if (!stat.isFile()) return yield* notAnImage(path, "not a regular file", "looked at its type")
    if (stat.size < 4096) return yield* notAnImage(path, `only ${stat.size} bytes`, "memory is at least a page of 4096")
    if (stat.size > MAX_MEMORY) return yield* kcoreMemory(fd, path, stat.size)
    const windows: Array<Uint8Array> = []
    for (let at = 0; at < stat.size; at += WINDOW) {
      windows.push(yield* native.mmap(fd, at, Math.min(WINDOW, stat.size - at), "read"))
    }
    const mapped = mappedFile(path, stat.size, windows, backingFile(native, fd))
    const flattened = magicOf(mapped) === FLATTENED_SIGNATURE
    const file = flattened ? yield* unflatten(mapped) : mapped
    const magic = magicOf(file)
    const foreign = FOREIGN.find(([start]) => magic.startsWith(start))
    if (foreign !== undefined) {
      return yield* notAnImage(path, `a ${foreign[1]}`, "looked at its first bytes", foreign[2])
    }
    if (magic.startsWith("\x7fELF")) return yield* coreMemory(file)
    if (magic.startsWith(KDUMP_SIGNATURE)) return yield* kdumpMemory(file)
    if (flattened) {
      return yield* notAnImage(path, "a flattened core without a core in it", "looked for an ELF or a kdump header")
    }
    if (magic.startsWith(LIME)) {
      return yield* limeMemory(file)
    }
    return yield* rawMemory(
      {
        subject: path,
        size: file.size,
        memory: (pieces) =>
          GuestMemory.make(
            pieces.flatMap(({ end, offset, start }) => file.regions(start, offset, offset + end - start)),
            {
              subject: path
            }
          )
      },
      options.locate
    )
  }).pipe(
    // After the mappings were made, so before they end.
    Effect.tap((memory) => Effect.addFinalizer(() => Effect.sync(() => memory.release()))),
    Effect.withSpan("MemoryImage.openMemoryImage", { attributes: { path } })
  )

const FOREIGN: ReadonlyArray<readonly [start: string, what: string, hint: string]> = [
  ["QFI\xfb", "QEMU disk image or VM snapshot", HINT],
  ["QEVM", "QEMU migration stream", HINT],
  ["\x1f\x8b", "gzip file", "decompress it first"],
  ["\x28\xb5\x2f\xfd", "zstd file", "decompress it first"],
  ["\xfd7zXZ", "xz file", "decompress it first"]
]

const magicOf = (file: ImageFile): string => Buffer.from(file.bytes(0, 16) ?? []).toString("latin1")

/**
 * A LiME dump: ranges of RAM one behind the other, each with a header before it. The last may be cut short.
 * @see github.com/504ensicsLabs/LiME doc/README.md, "LiME Memory Range Header Version 1 Specification"
 */
const limeMemory = (file: ImageFile): Either.Either<GuestMemory, FormatError> =>
  Either.flatMap(
    parsing(() => {
      const regions: Array<MemoryRegion> = []
      const broken = (offset: number, expected: string) =>
        new FormatError({ format: "LiME", subject: file.subject, offset, expected })
      for (let at = 0, ranges = 0; at + LIME_HEADER <= file.size; ranges++) {
        const header = viewOf(file.bytes(at, LIME_HEADER)!)
        if (header.getUint32(0, false) !== Buffer.from(LIME).readUInt32BE() || header.getUint32(4, true) !== 1) {
          throw broken(at, "a range's header of version 1")
        }
        const start = Number(header.getBigUint64(8, true))
        const length = Number(header.getBigUint64(16, true)) - start + 1
        if (!(length > 0 && start + length <= 2 ** 52)) throw broken(at + 8, "a range of addresses below 2^52")
        if (ranges === MAX_RANGES) throw broken(at, `no more than ${MAX_RANGES} ranges`)
        const from = at + LIME_HEADER
        at = from + length
        regions.push(...file.regions(start, from, Math.min(at, file.size)))
      }
      return regions
    }),
    (regions) => GuestMemory.make(regions, { subject: file.subject })
  )
