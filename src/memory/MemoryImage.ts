import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import { Buffer } from "node:buffer"
import { fstatSync } from "node:fs"
import { FormatError, parsing, type SyscallError } from "../core/Errors.ts"
import { parseElf, SegmentType } from "../core/image/Elf.ts"
import { Native } from "../core/Native.ts"
import { ARCHS } from "./arch/Arch.ts"
import { FLATTENED_SIGNATURE, unflatten } from "./cores/Flattened.ts"
import { type ImageFile, mappedFile, viewOf, WINDOW } from "./cores/ImageFile.ts"
import { KDUMP_SIGNATURE, kdumpMemory } from "./cores/Kdump.ts"
import type { NotAKernel } from "./Errors.ts"
import { GuestMemory, type MemoryRegion } from "./GuestMemory.ts"
import { type FileSegment, HINT, type LocateKernel, notAnImage, rawMemory } from "./RawMemory.ts"

/** fcntl.h; without O_NONBLOCK opening a FIFO waits for its writer. */
const O_NONBLOCK = 0o4000
/** The longest region of a `GuestMemory`. */
const REGION = 2 ** 30
/** Of an ELF file. */
const HEADER = 64
const MAX_HEADERS = 2 ** 26
/** `MAX_PHYSMEM_BITS`, arch/x86/include/asm/sparsemem.h with 4-level paging, v6.12. */
const MAX_MEMORY = 2 ** 46
/** `struct lime_header`: magic, version 1, first and last address of the bytes that follow it, 8 bytes reserved. */
const LIME = "EMiL"
const LIME_HEADER = 32
/** More ranges of RAM than any machine has. */
const MAX_RANGES = 65536
const ET_CORE = 4

/**
 * A file that holds a guest's physical memory, mapped read-only until the scope closes: a raw image (QEMU's
 * `memory-backend-file`, `pmemsave`), an ELF core (`dump-guest-memory`, kdump's `/proc/vmcore`), a kdump-compressed core
 * (makedumpfile, `dump-guest-memory -z`), these two flattened (`makedumpfile -F`), or a LiME dump. A file cut short is read as
 * far as it goes. It must not shrink while it is mapped: that is SIGBUS.
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
    if (stat.size > MAX_MEMORY) {
      return yield* notAnImage(
        path,
        `${stat.size} bytes, more memory than there can be`,
        "looked at its size",
        "if it is /proc/kcore, read the running kernel by bpf(2) instead (--live, ktstr/host)"
      )
    }
    const windows: Array<Uint8Array> = []
    for (let at = 0; at < stat.size; at += WINDOW) {
      windows.push(yield* native.mmap(fd, at, Math.min(WINDOW, stat.size - at), "read"))
    }
    const mapped = mappedFile(path, stat.size, windows, (at) => native.nextData(fd, at))
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
 * The segments of a core. They may overlap (kdump's has the kernel's text twice, QEMU's `-p` one segment a mapping): of
 * each address the first segment's bytes are taken. What a segment has beyond its bytes in the file (`p_memsz` above
 * `p_filesz`) is zeros, unless another segment has it: makedumpfile leaves out pages that way.
 */
const coreMemory = (file: ImageFile): Either.Either<GuestMemory, NotAKernel | FormatError> =>
  Either.gen(function*() {
    const { subject } = file
    const elf = yield* parsing(() => parseElf(headersOf(file), subject))
    if (elf.type !== ET_CORE) {
      return yield* Either.left(
        notAnImage(
          subject,
          "an ELF file, but no core",
          `its type is ${elf.type}`,
          "a kernel's vmlinux goes with --vmlinux; " + HINT
        )
      )
    }
    if (!ARCHS.some(({ machines }) => machines.includes(elf.machine))) {
      return yield* Either.left(
        notAnImage(subject, `a core of machine ${elf.machine}`, "only x86 (62 and 3) and arm64 (183) are read")
      )
    }
    const loads = elf.segments.filter(({ paddr, type }) => type === SegmentType.Load && paddr < 2n ** 52n)
    const stored = disjoint(loads.map(({ filesz, offset, paddr }) => {
      const start = Number(paddr)
      return { start, end: start + filesz, offset }
    }))
    const rest = disjoint(loads.map(({ filesz, memsz, paddr }) => {
      const start = Number(paddr)
      return { start: start + filesz, end: start + memsz, offset: 0 }
    }))
    const regions = [
      ...stored.flatMap(({ end, offset, start }) => file.regions(start, offset, offset + end - start)), // or cut short
      ...yield* zeros(subject, outside(rest, stored))
    ]
    if (regions.length === 0) {
      return yield* Either.left(notAnImage(subject, "a core without memory", `it has ${elf.segments.length} segments`))
    }
    return yield* GuestMemory.make(regions, { subject })
  })

/** Pieces in order, without what an earlier one has already. */
const disjoint = (pieces: ReadonlyArray<FileSegment>): ReadonlyArray<FileSegment> => {
  const kept: Array<FileSegment> = []
  let reached = 0
  for (const { end, offset, start } of [...pieces].sort((a, b) => a.start - b.start)) {
    const from = Math.max(start, reached)
    if (from >= end) continue
    kept.push({ start: from, end, offset: offset + from - start })
    reached = end
  }
  return kept
}

/** The parts of `pieces` that no piece of `others` covers; both are in order and disjoint. */
const outside = (
  pieces: ReadonlyArray<FileSegment>,
  others: ReadonlyArray<FileSegment>
): ReadonlyArray<FileSegment> => {
  const left: Array<FileSegment> = []
  let next = 0
  for (const { end, offset, start } of pieces) {
    let at = start
    while (next < others.length && others[next].end <= start) next++
    for (let index = next; index < others.length && others[index].start < end; index++) {
      if (others[index].start > at) left.push({ start: at, end: others[index].start, offset })
      at = Math.max(at, others[index].end)
    }
    if (at < end) left.push({ start: at, end, offset })
  }
  return left
}

/** Regions of zeros, which share one buffer that nobody ever writes: the host allocates none of it. */
const zeros = (
  subject: string,
  pieces: ReadonlyArray<FileSegment>
): Either.Either<ReadonlyArray<MemoryRegion>, FormatError> => {
  const lengths = pieces.map(({ end, start }) => end - start)
  const total = lengths.reduce((sum, length) => sum + length, 0)
  if (total > MAX_MEMORY) {
    const expected = `segments of at most ${MAX_MEMORY} bytes together, not ${total}`
    return Either.left(new FormatError({ format: "ELF", subject, offset: 64, expected }))
  }
  const buffer = new Uint8Array(lengths.reduce((most, length) => Math.max(most, Math.min(length, REGION)), 0))
  return Either.right(
    pieces.flatMap(({ end, start }) =>
      Array.from({ length: Math.ceil((end - start) / REGION) }, (_, index) => ({
        start: start + index * REGION,
        bytes: buffer.subarray(0, Math.min(REGION, end - start - index * REGION)),
        nextWritten: () => undefined
      }))
    )
  )
}

/** The part of a core that is headers, without its sections: those lie behind the memory, perhaps far away. */
const headersOf = (file: ImageFile): Uint8Array => {
  const start = (bytes: number) => file.bytes(0, Math.min(file.size, bytes)) ?? new Uint8Array(0)
  const view = viewOf(start(HEADER))
  if (view.byteLength < HEADER) return start(HEADER)
  const count = view.getUint16(56, true)
  if (count === 0xffff) { // PN_XNUM: the count is in section header 0, which follows the headers
    return start(Math.min(WINDOW, Math.max(MAX_HEADERS, Number(view.getBigUint64(40, true)) + HEADER)))
  }
  const end = Math.max(HEADER, Number(view.getBigUint64(32, true)) + count * view.getUint16(54, true))
  if (end > file.size || end > MAX_HEADERS) return start(MAX_HEADERS) // and let the parser say what is wrong
  const headers = start(end).slice()
  headers.fill(0, 40, 48) // e_shoff
  return headers
}

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
