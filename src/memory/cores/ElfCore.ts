import * as Either from "effect/Either"
import { FormatError, parsing } from "../../core/FormatError.ts"
import { parseElf, SegmentType } from "../../core/image/Elf.ts"
import { ARCHS } from "../arch/Arch.ts"
import type { NotAKernel } from "../Errors.ts"
import { GuestMemory, type MemoryRegion } from "../GuestMemory.ts"
import { type FileSegment, HINT, notAnImage } from "../RawMemory.ts"
import { type ImageFile, viewOf, WINDOW } from "./ImageFile.ts"

/** The longest region of a `GuestMemory`. */
const REGION = 2 ** 30
/** Of an ELF file. */
const HEADER = 64
const MAX_HEADERS = 2 ** 26
/** `MAX_PHYSMEM_BITS`, arch/x86/include/asm/sparsemem.h with 4-level paging, v6.12. */
export const MAX_MEMORY = 2 ** 46
const ET_CORE = 4

/**
 * The segments of a core. They may overlap (kdump's has the kernel's text twice, QEMU's `-p` one segment a mapping): of
 * each address the first segment's bytes are taken. What a segment has beyond its bytes in the file (`p_memsz` above
 * `p_filesz`) is zeros, unless another segment has it: makedumpfile leaves out pages that way.
 */
export const coreMemory = (file: ImageFile): Either.Either<GuestMemory, NotAKernel | FormatError> =>
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
export const disjoint = (pieces: ReadonlyArray<FileSegment>): ReadonlyArray<FileSegment> => {
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
