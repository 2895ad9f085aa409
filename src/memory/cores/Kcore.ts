import * as Either from "effect/Either"
import { Buffer } from "node:buffer"
import { readSync } from "node:fs"
import { type FormatError, parsing } from "../../core/FormatError.ts"
import { parseElf, SegmentType } from "../../core/image/Elf.ts"
import { elfNote } from "../../core/image/ElfNote.ts"
import type { NotAKernel } from "../Errors.ts"
import { GuestMemory } from "../GuestMemory.ts"
import { notAnImage } from "../RawMemory.ts"
import { disjoint } from "./ElfCore.ts"
import { FilePages } from "./FilePages.ts"

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
    const pages = new FilePages(fd, ram, {
      refused: "lies in a page that /proc/kcore does not let us read",
      running: true,
      vmcoreinfo: note && Buffer.from(note).toString("latin1")
    })
    return yield* GuestMemory.paged(pages, { subject })
  })

/** Undefined where not all of it can be read. */
const readAt = (fd: number, at: number, length: number): Buffer | undefined => {
  const bytes = Buffer.alloc(length)
  try {
    return readSync(fd, bytes, 0, length, at) === length ? bytes : undefined
  } catch {
    return undefined // the parser says what is missing, and without its note the kernel is searched for
  }
}
