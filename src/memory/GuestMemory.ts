import type * as Context from "effect/Context"
import type * as Either from "effect/Either"
import { Buffer } from "node:buffer"
import { readSync } from "node:fs"
import { hex } from "../core/Address.ts"
import { FormatError, parsing } from "../core/FormatError.ts"
import type { Native } from "../core/Native.ts"

/**
 * The next bytes at or behind `at` that were ever written: `from` up to `to`. Undefined: none.
 *
 * @since 0.1.0
 * @category models
 */
export type NextWritten = (at: number) => readonly [from: number, to: number] | undefined

/** The file whose bytes a region's are; offsets count from the region's, or the file's, first byte. */
export interface BackingFile {
  readonly nextWritten: NextWritten
  /** Fills all of `out` from an offset on; false where the file has no more, or cannot be read. */
  readonly read: (at: number, out: Uint8Array) => boolean
}

/**
 * `bytes` is the guest's physical memory from byte address `start` on. At most 1 GiB, the size of a mapping.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemoryRegion {
  readonly start: number
  readonly bytes: Uint8Array
  /**
   * Where in `bytes` anything was ever written: to read other bytes makes the host allocate them, though they are zeros.
   * Without it all of them are taken for written.
   */
  readonly nextWritten?: NextWritten
  /** Copies out of the file that `bytes` map: a long copy then has no page fault for each page that it reads. */
  readonly read?: BackingFile["read"]
}

/** A file that is mapped. */
export const backingFile = (native: Context.Tag.Service<Native>, fd: number): BackingFile => ({
  nextWritten: (at) => native.nextData(fd, at),
  read: (at, out) => {
    try {
      return readSync(fd, out, 0, out.length, at) === out.length
    } catch {
      return false // EIO, say: a touch of the mapping would be SIGBUS
    }
  }
})

/** A file's part of `length` bytes from byte `offset` on. */
export const partOf = (file: BackingFile, offset: number, length: number): BackingFile => ({
  nextWritten: (at) => {
    const found = file.nextWritten(offset + at)
    return found === undefined || found[0] >= offset + length
      ? undefined
      : [found[0] - offset, Math.min(found[1] - offset, length)]
  },
  read: (at, out) => file.read(offset + at, out)
})

/** The parts of a region between two of its bytes that were ever written, each once, in order. */
export function* writtenParts(
  { bytes, nextWritten }: MemoryRegion,
  from = 0,
  to = bytes.length
): Generator<readonly [from: number, to: number]> {
  const end = Math.min(to, bytes.length)
  for (let at = from; at < end;) {
    const found = nextWritten === undefined ? [at, end] as const : nextWritten(at)
    if (found === undefined || found[0] >= end || found[1] <= at) return
    yield [Math.max(at, found[0]), Math.min(found[1], end)]
    at = found[1]
  }
}

/**
 * Memory whose pages of 4096 bytes are each made when they are first read, in place of regions.
 *
 * @since 0.1.0
 * @category models
 */
export interface PagedSource {
  /** Number of pages that there are. */
  readonly present: number
  /** One past the highest page's number. */
  readonly pages: number
  /** The bytes of a page, which stay as they are from then on; undefined where there is none, or it is damaged. */
  readonly page: (number: number) => DataView | undefined
  /** The first page from `number` on that is there, or -1. */
  readonly next: (number: number) => number
  /** Why a page cannot be read, as the end of a sentence: "lies in …". */
  readonly absence: (number: number) => string
  /** The text of the VMCOREINFO note, where the source says it beside the pages. */
  readonly vmcoreinfo?: string | undefined
  /** Whether the memory is of a kernel that runs on: pages are of the moments when they were read. */
  readonly running?: boolean | undefined
}

/** The end of a sentence about an address that is read after its memory went. */
export const RELEASED = "lies in memory that was released: its scope has closed, or the freeze it belongs to has ended"

const MAX_REGION = 2 ** 30
/** Copies of 64 KiB or more are read from a region's file. */
const LONG_COPY = 2 ** 16
const MAX_PHYSICAL = 2 ** 52
const PAGE = 4096
/** Of the CPU's cache, in bytes. */
const LINE = 64
/** The CPU itself goes on reading where a larger stretch is read from its start. */
const MOST_PREFETCHED = 256
const NOTHING = new DataView(new ArrayBuffer(0))

const wordsOf = ({ buffer, byteLength, byteOffset }: DataView): Uint32Array | undefined =>
  byteOffset % 4 === 0 ? new Uint32Array(buffer, byteOffset, byteLength >>> 2) : undefined

/**
 * A guest's physical memory: sorted regions with holes between them. Regions that touch are read as one, so a mapping
 * may come in pieces. Addresses are bytes (`Pa`), numbers are little-endian, alignment does not matter.
 *
 * Nothing here throws after construction: an address in a hole gives -1, `undefined` or `false`.
 * Borrowed bytes live as long as the mapping they come from. Before that ends, `release` empties this: what reads it later
 * is told that there is no memory, and never touches what is not mapped any more.
 *
 * @since 0.1.0
 * @category models
 */
export class GuestMemory {
  /** After `seek`, or any scalar read: the region that was found … */
  view: DataView
  /** … and, after `seek`, where in it. */
  at = 0
  /** `view` as words of 32 bits; undefined of a page, and where it does not lie at a multiple of 4 in this process. */
  words: Uint32Array | undefined
  /** Physical address of byte 0 of `view`. */
  #base: number
  #current = 0
  /** Keeps the loads of `prefetch` from being optimized away. */
  #prefetched = 0
  #views: ReadonlyArray<DataView>
  /** The same regions as words. */
  #wordViews: ReadonlyArray<Uint32Array | undefined>
  #regions: ReadonlyArray<MemoryRegion>
  /** In place of regions. */
  #paged: PagedSource | undefined
  readonly writable: boolean
  /** Bytes in all regions, or pages. */
  readonly size: number
  /** One past the highest byte's address. */
  readonly end: number

  /**
   * @throws FormatError where two regions overlap, one is larger than 1 GiB or beyond 52 bits, or there is none.
   * `make` gives it as a value.
   */
  constructor(
    regions: ReadonlyArray<MemoryRegion>,
    options: { readonly subject?: string; readonly writable?: boolean; readonly paged?: PagedSource | undefined } = {}
  ) {
    const broken = (offset: number, expected: string) =>
      new FormatError({ format: "memory layout", subject: options.subject ?? "guest memory", offset, expected })
    const sorted = regions.filter((region) => region.bytes.length > 0).sort((a, b) => a.start - b.start)
    const { paged } = options
    if (sorted.length === 0 && !(paged !== undefined && paged.present > 0)) {
      throw broken(0, "at least one byte of memory")
    }
    let end = 0
    let size = 0
    for (const { bytes, start } of sorted) {
      if (!Number.isInteger(start) || start < 0 || start + bytes.length > MAX_PHYSICAL) {
        throw broken(start, `a region below 2^52, not ${bytes.length} bytes at ${start}`)
      }
      if (bytes.length > MAX_REGION) throw broken(start, `regions of at most 1 GiB, not ${bytes.length} bytes`)
      if (start < end) throw broken(start, `no region to start before ${hex(end)}, where the one before it ends`)
      end = start + bytes.length
      size += bytes.length
    }
    this.#regions = sorted
    this.#views = sorted.map(({ bytes }) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    this.#wordViews = this.#views.map(wordsOf)
    this.#paged = paged
    this.view = this.#views[0] ?? NOTHING
    this.words = this.#wordViews[0]
    this.#base = sorted[0]?.start ?? 0
    this.writable = options.writable ?? false
    this.size = size + (paged?.present ?? 0) * PAGE
    this.end = Math.max(end, (paged?.pages ?? 0) * PAGE)
  }

  /** Memory whose pages are made when they are read; a `FormatError` where there is none. */
  static readonly paged = (
    paged: PagedSource,
    options: { readonly subject?: string } = {}
  ): Either.Either<GuestMemory, FormatError> => parsing(() => new GuestMemory([], { ...options, paged }))

  /** As the constructor, with its `FormatError` as a value. */
  static readonly make = (
    regions: ReadonlyArray<MemoryRegion>,
    options: { readonly subject?: string; readonly writable?: boolean } = {}
  ): Either.Either<GuestMemory, FormatError> => parsing(() => new GuestMemory(regions, options))

  /** Why an address cannot be read, as the end of a sentence. */
  absence(pa: number): string {
    return this.#paged?.absence(Math.floor(pa / PAGE)) ?? "lies in memory that is not there"
  }

  /** The text of the VMCOREINFO note where this memory came with it; it may lie. */
  get vmcoreinfo(): string | undefined {
    return this.#paged?.vmcoreinfo
  }

  /** Whether its kernel runs on meanwhile. */
  get running(): boolean {
    return this.#paged?.running === true
  }

  /** Sorted; none once it was released, nor where pages are made when they are read: `stretches` has those too. */
  get regions(): ReadonlyArray<MemoryRegion> {
    return this.#regions
  }

  /** All that has bytes between two addresses, in order: regions, whole, or pages that are made for it. */
  *stretches(from = 0, to = Infinity): Generator<MemoryRegion> {
    for (let index = this.#before(from); index < this.#regions.length && this.#regions[index].start < to; index++) {
      const region = this.#regions[index]
      if (region.start + region.bytes.length > from) yield region
    }
    const paged = this.#paged
    if (paged === undefined) return
    for (
      let page = paged.next(Math.ceil(from / PAGE));
      page >= 0 && page * PAGE < to;
      page = paged.next(page + 1)
    ) {
      const made = paged.page(page)
      if (made !== undefined) {
        yield { start: page * PAGE, bytes: new Uint8Array(made.buffer, made.byteOffset, made.byteLength) }
      }
    }
  }

  /** Was it emptied, because its scope closed? */
  get released(): boolean {
    return this.#regions.length === 0 && this.#paged === undefined
  }

  /** Empty it for ever: its mapping, or the freeze that it belongs to, is about to end. */
  release(): void {
    this.#regions = this.#views = this.#wordViews = []
    this.#paged = undefined
    this.view = NOTHING
    this.words = undefined
    this.#base = 0
    this.at = 0
  }

  /** The same memory with an end of its own. */
  borrow(): GuestMemory {
    return new GuestMemory(this.#regions, { writable: this.writable, paged: this.#paged })
  }

  /**
   * Hot: when the `len` bytes at `pa` lie within one region, sets `view` and `at` to them. Valid until the next call of
   * anything on this object.
   */
  seek(pa: number, len: number): boolean {
    const at = pa - this.#base
    if (at >= 0 && at + len <= this.view.byteLength) {
      this.at = at
      return true
    }
    return this.#locate(pa) && this.#within(pa, len)
  }

  /**
   * Load `size` bytes at each of the addresses `places[from]` up to `places[to]`, so that they lie in the CPU's cache. In
   * a loop that does nothing else these loads wait together, where a walk waits for one after the other: some 300 ns each
   * in hundreds of MiB. What is not there is left for the walk to find.
   */
  prefetch(places: Float64Array, from: number, to: number, size: number): void {
    const bytes = Math.min(size, MOST_PREFETCHED)
    let { view } = this
    let base = this.#base
    let sum = 0
    for (let n = from; n < to; n++) {
      let at = places[n] - base
      if (!(at >= 0 && at + bytes <= view.byteLength)) {
        if (!this.seek(places[n], bytes)) continue
        view = this.view
        base = this.#base
        at = this.at
      }
      for (let line = 0; line < bytes; line += LINE) sum += view.getUint8(at + line)
    }
    this.#prefetched = (this.#prefetched + sum) | 0
  }

  #within(pa: number, len: number): boolean {
    this.at = pa - this.#base
    return this.at + len <= this.view.byteLength
  }

  /** The last region that starts at or before an address; the first where none does. */
  #before(pa: number): number {
    let low = 0
    let high = this.#regions.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.#regions[middle].start <= pa) low = middle
      else high = middle - 1
    }
    return low
  }

  /** Make the region, or the page, that holds `pa` the current one. */
  #locate(pa: number): boolean {
    if (this.#regions.length === 0) return this.#makePage(pa)
    const low = this.#before(pa)
    const { bytes, start } = this.#regions[low]
    if (!(pa >= start && pa < start + bytes.length)) return false
    this.#current = low
    this.#base = start
    this.view = this.#views[low]
    this.words = this.#wordViews[low]
    return true
  }

  #makePage(pa: number): boolean {
    const page = Math.floor(pa / PAGE)
    const made = this.#paged?.page(page)
    if (made === undefined) return false
    this.#base = page * PAGE
    this.view = made
    return true
  }

  /** -1 where there is no memory. */
  u8(pa: number): number {
    return this.seek(pa, 1) ? this.view.getUint8(this.at) : -1
  }

  /** -1 where there is no memory. */
  u16(pa: number): number {
    if (this.seek(pa, 2)) return this.view.getUint16(this.at, true)
    return this.#gather(pa, 2)?.getUint16(0, true) ?? -1
  }

  /** -1 where there is no memory. */
  u32(pa: number): number {
    if (this.seek(pa, 4)) return this.view.getUint32(this.at, true)
    return this.#gather(pa, 4)?.getUint32(0, true) ?? -1
  }

  /** The little-endian 64 bits at a physical address; undefined where there is no memory. */
  u64(pa: number): bigint | undefined {
    if (this.seek(pa, 8)) return this.view.getBigUint64(this.at, true)
    return this.#gather(pa, 8)?.getBigUint64(0, true)
  }

  #gather(pa: number, len: number): DataView | undefined {
    const bytes = this.bytes(pa, len)
    return bytes === undefined ? undefined : new DataView(bytes.buffer, bytes.byteOffset, len)
  }

  /** Borrowed when they lie within one region, else a copy; `undefined` where any of them is missing. */
  bytes(pa: number, len: number): Uint8Array | undefined {
    if (this.seek(pa, len)) return new Uint8Array(this.view.buffer, this.view.byteOffset + this.at, len)
    if (!this.has(pa, len)) return undefined
    const out = new Uint8Array(len)
    this.copy(pa, out)
    return out
  }

  /** Whether all `len` bytes at `pa` are there. */
  has(pa: number, len: number): boolean {
    if (this.seek(pa, len)) return true
    let at = pa
    do {
      if (!this.#locate(at)) return false
      at = this.#base + this.view.byteLength
    } while (at < pa + len)
    return true
  }

  /** The bytes from `pa` on as far as they go without a gap, `most` at most; borrowed where they lie in one region. */
  run(pa: number, most: number): Uint8Array {
    const pieces: Array<Uint8Array> = []
    let length = 0
    while (length < most && this.#locate(pa + length)) {
      const at = pa + length - this.#base
      const part = Math.min(most - length, this.view.byteLength - at)
      pieces.push(new Uint8Array(this.view.buffer, this.view.byteOffset + at, part))
      length += part
    }
    return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces, length)
  }

  /** Fill `out` from `pa` on; `false` leaves it partly filled. */
  copy(pa: number, out: Uint8Array): boolean {
    for (let done = 0; done < out.length;) {
      if (!this.#locate(pa + done)) return false
      const at = pa + done - this.#base
      const part = Math.min(out.length - done, this.view.byteLength - at)
      const read = part >= LONG_COPY ? this.#regions[this.#current]?.read : undefined
      if (read === undefined) out.set(new Uint8Array(this.view.buffer, this.view.byteOffset + at, part), done)
      else if (!read(at, out.subarray(done, done + part))) return false
      done += part
    }
    return true
  }

  /** All of `bytes` or, where memory is missing or mapped read-only, none of them. */
  write(pa: number, bytes: Uint8Array): boolean {
    if (!this.writable || !this.has(pa, bytes.length)) return false
    for (let done = 0; done < bytes.length;) {
      this.#locate(pa + done)
      const at = pa + done - this.#base
      const part = Math.min(bytes.length - done, this.view.byteLength - at)
      this.#regions[this.#current].bytes.set(bytes.subarray(done, done + part), at)
      done += part
    }
    return true
  }
}
