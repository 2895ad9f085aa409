import * as Either from "effect/Either"
import { Buffer } from "node:buffer"
import * as zlib from "node:zlib"
import { cString } from "../../core/CString.ts"
import { FormatError, parsing } from "../../core/FormatError.ts"
import { GuestMemory, type PagedSource } from "../GuestMemory.ts"
import { type ImageFile, viewOf } from "./ImageFile.ts"
import { RecentPages } from "./RecentPages.ts"
import { unpackLzo, unpackSnappy } from "./UnpackPage.ts"

export const KDUMP_SIGNATURE = "KDUMP   "
const PAGE = 4096
/** As `uname -m` has them. */
const MACHINES = ["x86_64", "aarch64"]
/** `struct disk_dump_header`, and the places of its fields. */
const HEADER = 464
const VERSION = 8
const MACHINE = 272
const STATUS = 424
const BLOCK_SIZE = 428
const SUB_HEADER_BLOCKS = 432
const BITMAP_BLOCKS = 436
const MAX_MAPNR = 440
/** `struct kdump_sub_header`: what version 6 of the header has of it, and the places of its fields. */
const SUB_HEADER = 104
const SPLIT = 12
const OFFSET_VMCOREINFO = 32
const SIZE_VMCOREINFO = 40
const MAX_MAPNR_64 = 96
/** `struct page_desc`: offset, size, flags, `page_flags`. */
const DESCRIPTOR = 24
/** Pages that are in the file are counted once for each of these parts of their bitmap. */
const STRIDE_BYTES = 512
/** `MAX_PHYSMEM_BITS` in pages, arch/x86/include/asm/sparsemem.h with 4-level paging, v6.12. */
const MAX_PAGES = 2 ** 34
/** The kernel's own limit is a page. */
const MOST_VMCOREINFO = 65536
/** `DUMP_DH_COMPRESSED_ZLIB` and so on. */
const ZLIB = 1
const LZO = 2
const SNAPPY = 4
const ZSTD = 0x20

/** Node has it since 22.15 and 23.8. */
const { zstdDecompressSync: unpackZstd } = zlib as {
  readonly zstdDecompressSync?: (packed: Uint8Array, options: zlib.ZlibOptions) => Uint8Array
}

/** A little more than a page, or zlib would make another buffer to see that nothing follows. */
const UNPACK = { maxOutputLength: PAGE, chunkSize: PAGE + 64 }

const ones = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length)

/**
 * A kdump-compressed core: the pages whose bit is set in its second bitmap lie in the file, each packed by itself; those
 * that only the first one has were left out. A page is unpacked when it is first read, and stays for a while.
 * @see makedumpfile's IMPLEMENTATION, "The kdump-compressed format", diskdump_mod.h `struct disk_dump_header`,
 * `struct kdump_sub_header`, `struct page_desc`, 1.7.2; QEMU include/sysemu/dump.h, 7.2
 */
export const kdumpMemory = (file: ImageFile): Either.Either<GuestMemory, FormatError> =>
  Either.flatMap(parsing(() => new KdumpPages(file)), (pages) => GuestMemory.paged(pages, { subject: file.subject }))

class KdumpPages implements PagedSource {
  readonly present: number
  readonly pages: number
  readonly vmcoreinfo: string | undefined
  readonly #file: ImageFile
  /** A bit for each page that there was. */
  readonly #existing: Uint8Array
  /** A bit for each page that is in the file. */
  readonly #written: Uint8Array
  /** Set bits of `written` before each stride. */
  readonly #before: Float64Array
  readonly #descriptors: number
  readonly #recent = new RecentPages()

  constructor(file: ImageFile) {
    this.#file = file
    const broken = (offset: number, expected: string) =>
      new FormatError({ format: "kdump", subject: file.subject, offset, expected })
    const need = (at: number, length: number) => {
      const bytes = file.bytes(at, length)
      if (bytes === undefined) throw broken(at, `${length} more bytes in a file of ${file.size}`)
      return bytes
    }
    const bytes = need(0, HEADER)
    const header = viewOf(bytes)
    const sub = viewOf(need(PAGE, SUB_HEADER))
    const machine = cString(bytes.subarray(MACHINE, MACHINE + 65))
    if (!MACHINES.includes(machine)) throw broken(MACHINE, `the machine ${MACHINES.join(" or ")}`)
    if (header.getUint32(BLOCK_SIZE, true) !== PAGE) throw broken(BLOCK_SIZE, `blocks of ${PAGE} bytes`)
    if ((header.getUint32(STATUS, true) & ZSTD) !== 0 && unpackZstd === undefined) {
      throw broken(STATUS, `no zstd, which Node unpacks since 22.15 and this is ${process.versions.node}`)
    }
    if (sub.getUint32(SPLIT, true) !== 0) throw broken(PAGE + SPLIT, "one whole file (makedumpfile --reassemble)")
    const pages = header.getUint32(VERSION, true) >= 6
      ? Number(sub.getBigUint64(MAX_MAPNR_64, true))
      : header.getUint32(MAX_MAPNR, true)
    const bitmaps = (1 + header.getUint32(SUB_HEADER_BLOCKS, true)) * PAGE
    const half = header.getUint32(BITMAP_BLOCKS, true) * PAGE / 2
    const length = Math.ceil(pages / 8)
    if (!(pages > 0 && pages <= MAX_PAGES && length <= half)) {
      throw broken(MAX_MAPNR, `as many pages as its bitmaps have bits, not ${pages}`)
    }
    this.pages = pages
    this.#existing = need(bitmaps, length)
    this.#written = need(bitmaps + half, length)
    this.#descriptors = bitmaps + half * 2
    this.vmcoreinfo = vmcoreinfoOf(file, sub)
    this.#before = new Float64Array(Math.ceil(length / STRIDE_BYTES))
    let count = 0
    for (let at = 0; at < length; at++) {
      if (at % STRIDE_BYTES === 0) this.#before[at / STRIDE_BYTES] = count
      count += ones[this.#written[at]]
    }
    this.present = count
  }

  page(page: number): DataView | undefined {
    return this.#recent.get(page, this.#make)
  }

  next(page: number): number {
    for (let at = page; at < this.pages;) {
      if ((at & 7) === 0 && this.#written[at / 8] === 0) at += 8
      else if (bit(this.#written, at)) return at
      else at++
    }
    return -1
  }

  absence(page: number): string {
    if (this.#has(page)) return "lies in a page that is damaged in the dump, or cut off"
    return page >= 0 && page < this.pages && bit(this.#existing, page)
      ? "lies in a page that was excluded by makedumpfile (-d)"
      : "lies in memory that is not there"
  }

  #has(page: number): boolean {
    return page >= 0 && page < this.pages && bit(this.#written, page)
  }

  /** The n-th page in the file has the n-th descriptor. */
  readonly #make = (page: number): DataView | undefined => {
    if (!this.#has(page)) return undefined
    const byte = Math.floor(page / 8)
    let rank = this.#before[Math.floor(byte / STRIDE_BYTES)]
    for (let at = byte - byte % STRIDE_BYTES; at < byte; at++) rank += ones[this.#written[at]]
    rank += ones[this.#written[byte] & ((1 << (page % 8)) - 1)]
    const descriptor = this.#file.bytes(this.#descriptors + rank * DESCRIPTOR, DESCRIPTOR)
    if (descriptor === undefined) return undefined
    const view = viewOf(descriptor)
    const length = view.getUint32(8, true)
    const packed = length <= PAGE ? this.#file.bytes(Number(view.getBigUint64(0, true)), length) : undefined
    const bytes = packed && unpack(packed, view.getUint32(12, true))
    return bytes?.length === PAGE ? viewOf(bytes) : undefined
  }
}

/** The text of the note, of which the sub-header says where it is. */
const vmcoreinfoOf = (file: ImageFile, sub: DataView): string | undefined => {
  const length = Number(sub.getBigUint64(SIZE_VMCOREINFO, true))
  if (length === 0 || length > MOST_VMCOREINFO) return undefined
  const text = file.bytes(Number(sub.getBigUint64(OFFSET_VMCOREINFO, true)), length)
  return text && Buffer.from(text).toString("latin1")
}

const bit = (bitmap: Uint8Array, page: number): boolean => (bitmap[Math.floor(page / 8)] >> (page % 8) & 1) !== 0

/** The bytes of a page, or those that it is by mistake; undefined where they cannot be unpacked. */
const unpack = (packed: Uint8Array, flags: number): Uint8Array | undefined => {
  switch (flags & (ZLIB | LZO | SNAPPY | ZSTD)) {
    case 0:
      return packed
    case ZLIB:
      return attempt(() => zlib.inflateSync(packed, UNPACK))
    case LZO:
      return unpackLzo(packed, PAGE)
    case SNAPPY:
      return unpackSnappy(packed, PAGE)
    case ZSTD:
      return attempt(() => unpackZstd?.(packed, UNPACK))
  }
  return undefined
}

const attempt = (work: () => Uint8Array | undefined): Uint8Array | undefined => {
  try {
    return work()
  } catch {
    return undefined // damaged: `absence` says so
  }
}
