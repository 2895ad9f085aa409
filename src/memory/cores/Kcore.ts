import * as Either from "effect/Either"
import { Buffer } from "node:buffer"
import { readSync } from "node:fs"
import { type FormatError, parsing } from "../../core/Errors.ts"
import { parseElf, SegmentType } from "../../core/image/Elf.ts"
import { elfNote } from "../../core/image/ElfNote.ts"
import type { NotAKernel } from "../Errors.ts"
import { GuestMemory, type PagedSource } from "../GuestMemory.ts"
import { type FileSegment, notAnImage } from "../RawMemory.ts"
import { RecentPages } from "../RecentPages.ts"
import { disjoint } from "./ElfCore.ts"
import { viewOf } from "./ImageFile.ts"

const PAGE = 4096
const HEADER = 64
const SEGMENT_HEADER = 56
/** More stretches of memory than a machine has, and their headers' bytes. */
const MAX_SEGMENTS = 65534
const MAX_HEADERS = 2 ** 22
/** The kernel's own limit of the note is a page; the registers and the task of the reader are beside it. */
const MAX_NOTES = 2 ** 20

/**
 * The running kernel's own memory, as `/proc/kcore` has it: an ELF core of its virtual addresses, in which those of RAM and
 * of the kernel's image say their physical one. A page is read when it is first asked for.
 * @see fs/proc/kcore.c `read_kcore_iter`, v6.12; the VMCOREINFO note came with v4.19, "proc/kcore: add vmcoreinfo note to /proc/kcore"
 */
export const kcoreMemory = (
  fd: number,
  subject: string,
  size: number
): Either.Either<GuestMemory, NotAKernel | FormatError> =>
  Either.gen(function*() {
    const start = readAt(fd, 0, HEADER)
    if (start === undefined || start.toString("latin1", 0, 4) !== "\x7fELF") {
      return yield* Either.left(
        notAnImage(subject, `${size} bytes, more memory than there can be`, "looked at its size and its first bytes")
      )
    }
    const count = Math.min(start.readUInt16LE(56), MAX_SEGMENTS)
    const headers = readAt(fd, 0, Math.min(Number(start.readBigUInt64LE(32)) + count * SEGMENT_HEADER, MAX_HEADERS))
    const { segments } = yield* parsing(() => parseElf(headers ?? start, subject))
    const segmentsOf = (type: number) => segments.filter((segment) => segment.type === type)
    const ram = disjoint(
      segmentsOf(SegmentType.Load).filter(({ paddr }) => paddr < 2n ** 52n).map(({ filesz, offset, paddr }) => ({
        start: Number(paddr),
        end: Number(paddr) + filesz,
        offset
      }))
    )
    const notes = segmentsOf(SegmentType.Note).map(({ filesz, offset }) =>
      filesz <= MAX_NOTES ? readAt(fd, offset, filesz) : undefined
    )
    const note = notes.map((bytes) => bytes && elfNote(bytes, "VMCOREINFO", 0)).find((found) => found !== undefined)
    return yield* GuestMemory.paged(kcorePages(fd, ram, note && Buffer.from(note).toString("latin1")), { subject })
  })

const kcorePages = (fd: number, ram: ReadonlyArray<FileSegment>, vmcoreinfo: string | undefined): PagedSource => {
  const recent = new RecentPages()
  const make = (page: number): DataView | undefined => {
    const found = ram.find(({ end, start }) => page * PAGE >= start && (page + 1) * PAGE <= end)
    const bytes = found && readAt(fd, found.offset + page * PAGE - found.start, PAGE)
    return bytes && viewOf(bytes)
  }
  const firstOf = ({ start }: FileSegment): number => Math.ceil(start / PAGE)
  const endOf = ({ end }: FileSegment): number => Math.floor(end / PAGE)
  return {
    running: true,
    present: ram.reduce((sum, segment) => sum + Math.max(0, endOf(segment) - firstOf(segment)), 0),
    pages: ram.reduce((most, segment) => Math.max(most, endOf(segment)), 0),
    page: (page) => recent.get(page, make),
    next: (from) => {
      for (const segment of ram) {
        const page = Math.max(from, firstOf(segment))
        if (page < endOf(segment)) return page
      }
      return -1
    },
    absence: () => "lies in memory that /proc/kcore does not have, or not for us",
    vmcoreinfo
  }
}

/** Undefined where not all of it can be read. */
const readAt = (fd: number, at: number, length: number): Buffer | undefined => {
  const bytes = Buffer.alloc(length)
  try {
    return readSync(fd, bytes, 0, length, at) === length ? bytes : undefined
  } catch {
    return undefined // `absence` says so
  }
}
