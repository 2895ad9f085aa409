import { hex, kvaFrom, kvaOffset, kvaPage } from "../core/Address.ts"
import { type Reason, unreadable } from "../core/Reason.ts"
import { NOT_PRESENT, OUT_OF_MEMORY, type PageTable } from "./arch/PageTable.ts"
import type { Unmapped } from "./Errors.ts"
import { type GuestMemory, RELEASED } from "./GuestMemory.ts"

/**
 * The longest stretch `window` gathers into its scratch buffer, in bytes.
 *
 * @since 0.1.0
 * @category constants
 */
export const WINDOW_LIMIT = 16 * 2 ** 20
/**
 * The longest stretch one `read` copies, in bytes: well above any kernel's BTF.
 *
 * @since 0.1.0
 * @category constants
 */
export const READ_LIMIT = 64 * 2 ** 20
const TOO_LONG = -3
/** Translations kept: those of 256 MiB of scattered pages, in 1 MiB. */
const SLOTS = 65536
const END = 2 ** 52

/** Slots that are forgotten one by one. Where more were written, clearing all of them costs less. */
const FEW = 4096

/**
 * Translations of pages that are known, shared by a space and its forks.
 *
 * @since 0.1.0
 * @category models
 */
export class Translations {
  /** Of each slot the page and its physical address, side by side: one line of the CPU's cache. A page of 0 is none. */
  readonly slots: Float64Array
  /** The slots written since all were forgotten, the first ones. */
  readonly #written = new Uint32Array(FEW)
  #count = 0

  constructor() {
    // zeros, which the host gives no memory until they are written: only slot 0 could be taken for the translation of page 0
    this.slots = new Float64Array(SLOTS * 2)
    this.slots[0] = -1
  }

  /** Keep a page's physical address in a slot of its own. */
  set(slot: number, page: number, pa: number): void {
    this.slots[slot] = page
    this.slots[slot + 1] = pa
    if (this.#count < FEW) this.#written[this.#count] = slot
    this.#count++
  }

  /** Empty all slots. */
  forget(): void {
    if (this.#count > FEW) this.slots.fill(0)
    else for (let n = 0; n < this.#count; n++) this.slots[this.#written[n]] = 0
    this.slots[0] = -1
    this.#count = 0
  }
}

/**
 * Why the last failed access failed, and where.
 *
 * @since 0.1.0
 * @category models
 */
export interface Fault {
  readonly address: bigint
  readonly reason: Unmapped["reason"]
}

/**
 * The page number of the 64-bit pointer at `at`: exact, no bigint.
 *
 * @since 0.1.0
 * @category reading
 */
export const pointerPage = (view: DataView, at: number): number =>
  view.getUint32(at + 4, true) * 2 ** 20 + (view.getUint32(at, true) >>> 12)

/**
 * The offset in its page of the 64-bit pointer at `at`.
 *
 * @since 0.1.0
 * @category reading
 */
export const pointerOffset = (view: DataView, at: number): number => view.getUint32(at, true) & 0xfff

/** The page number of the 64-bit pointer in the words at `at`. */
export const wordsPage = (words: Uint32Array, at: number): number => words[at + 1] * 2 ** 20 + (words[at] >>> 12)

/** The offset in its page of the 64-bit pointer in the words at `at`. */
export const wordsOffset = (words: Uint32Array, at: number): number => words[at] & 0xfff

/** The 64-bit pointer in the words at `at`. */
export const wordsPointer = (words: Uint32Array, at: number): bigint => BigInt(words[at + 1]) << 32n | BigInt(words[at])

/**
 * A kernel's virtual memory at one frozen instant: direct-map arithmetic first, then a small cache of translations, then
 * the page tables. On memory that goes on running, `flush` before each look.
 *
 * Loops pass a page number (address / 4096) and an offset in bytes that may exceed 4095.
 *
 * @since 0.1.0
 * @category models
 */
export class KernelSpace {
  /** After `window`: where the bytes are. Valid until the next call of anything on this object. */
  view: DataView
  at = 0
  /** After `wordWindow`: the same bytes as words of 32 bits, and the index of the first. */
  words: Uint32Array
  word = 0
  readonly memory: GuestMemory
  readonly #directBase: number
  readonly #directPages: number
  readonly #translations: Translations
  readonly #known: Float64Array
  #scratch = new Uint8Array(4096)
  #scratchView = new DataView(this.#scratch.buffer)
  #scratchWords = new Uint32Array(this.#scratch.buffer)
  #faultPage = 0
  #faultReason = NOT_PRESENT

  /**
   * @param directBase the page number at which physical address 0 is mapped, if known (`findDirectMap`)
   * @param translations those that are shared with a fork
   */
  constructor(
    readonly table: PageTable,
    readonly directBase: number | undefined,
    translations = new Translations()
  ) {
    this.#translations = translations
    this.#known = translations.slots
    this.memory = table.memory
    this.view = table.memory.view
    this.words = this.#scratchWords
    this.#directBase = directBase ?? END
    this.#directPages = directBase === undefined ? 0 : Math.ceil(table.memory.end / 4096)
  }

  /** Another cursor over the same memory: what it reads leaves this one's `view` and `at` valid. */
  fork(): KernelSpace {
    return new KernelSpace(this.table, this.directBase, this.#translations)
  }

  /** Forget all translations, those of its forks too. */
  flush(): void {
    this.#translations.forget()
  }

  /** Is a page one of those that map all physical memory, side by side? */
  isDirect(page: number): boolean {
    return page >= this.#directBase && page < this.#directBase + this.#directPages
  }

  /** Physical byte address of a page, `NOT_PRESENT` or `OUT_OF_MEMORY`. */
  translatePage(page: number): number {
    const direct = page - this.#directBase
    if (direct >= 0 && direct < this.#directPages) {
      return this.memory.seek(direct * 4096, 1) ? direct * 4096 : OUT_OF_MEMORY
    }
    const slot = (page & (SLOTS - 1)) * 2
    if (this.#known[slot] === page) return this.#known[slot + 1]
    const mapped = this.table.walk(page)
    const pa = mapped < 0 || this.memory.seek(mapped, 1) ? mapped : OUT_OF_MEMORY
    this.#translations.set(slot, page, pa)
    return pa
  }

  /**
   * Hot: make the `len` bytes at `page`, `offset` readable at `view`, `at`: borrowed where physical memory is in one
   * piece, else gathered in a scratch buffer that the next such call overwrites. False sets `fault`.
   */
  window(page: number, offset: number, len: number): boolean {
    if (offset >= 4096) {
      const skip = Math.floor(offset / 4096)
      page += skip
      offset -= skip * 4096
    }
    const direct = page - this.#directBase
    const pa = direct >= 0 && direct < this.#directPages
      ? direct * 4096
      : offset + len <= 4096
      ? this.translatePage(page)
      : this.#piece(page, offset + len)
    if (pa >= 0 && this.memory.seek(pa + offset, len)) {
      this.view = this.memory.view
      this.at = this.memory.at
      return true
    }
    return this.#gather(page, offset, len)
  }

  /**
   * Hot: as `window`, for bytes that are read as words: until V8 has optimized what reads them, that is quicker than by a
   * `DataView`, which is called for each. Bytes that do not begin and end at a multiple of 4 are copied first.
   */
  wordWindow(page: number, offset: number, len: number): boolean {
    if (!this.window(page, offset, len)) return false
    const { at, memory, view } = this
    const { words } = memory
    if (view !== memory.view || words === undefined || ((at | len) & 3) !== 0) return this.#copyWords(page, len)
    this.words = words
    this.word = at >>> 2
    return true
  }

  /** The bytes that were made readable, moved to the scratch buffer unless they are there. */
  #copyWords(page: number, len: number): boolean {
    const { at, view } = this
    if (view !== this.#scratchView) {
      if (!(len <= WINDOW_LIMIT)) return this.#fail(page, TOO_LONG)
      this.#makeRoom(len)
      this.#scratch.set(new Uint8Array(view.buffer, view.byteOffset + at, len))
      this.view = this.#scratchView
      this.at = 0
    }
    this.words = this.#scratchWords
    this.word = 0
    return true
  }

  /** Hot: the same of a physical address whose page was translated before; what does not lie in one region is refused. */
  windowAt(pa: number, len: number): boolean {
    if (!this.memory.seek(pa, len)) return false
    this.view = this.memory.view
    this.at = this.memory.at
    return true
  }

  /** The physical address of a run of pages that lie in one piece, else negative. */
  #piece(page: number, bytes: number): number {
    const first = this.translatePage(page)
    for (let i = 1; i * 4096 < bytes; i++) {
      if (first < 0 || this.translatePage(page + i) !== first + i * 4096) return NOT_PRESENT
    }
    return first
  }

  #gather(page: number, offset: number, len: number): boolean {
    if (!(len <= WINDOW_LIMIT)) return this.#fail(page, TOO_LONG)
    this.#makeRoom(len)
    if (!this.#copy(page, offset, this.#scratch, len)) return false
    this.view = this.#scratchView
    this.at = 0
    return true
  }

  #makeRoom(len: number): void {
    if (this.#scratch.length >= len) return
    this.#scratch = new Uint8Array(Math.ceil(len / 4) * 4)
    this.#scratchView = new DataView(this.#scratch.buffer)
    this.#scratchWords = new Uint32Array(this.#scratch.buffer)
  }

  #copy(page: number, offset: number, out: Uint8Array, len: number): boolean {
    for (let done = 0; done < len;) {
      const pa = this.translatePage(page)
      if (pa < 0) return this.#fail(page, pa)
      let pages = 1
      let part = Math.min(len - done, 4096 - offset)
      while (done + part < len && this.translatePage(page + pages) === pa + pages * 4096) {
        pages++
        part = Math.min(len - done, pages * 4096 - offset)
      }
      if (!this.memory.copy(pa + offset, out.subarray(done, done + part))) return this.#fail(page, OUT_OF_MEMORY)
      done += part
      offset = 0
      page += pages
    }
    return true
  }

  #fail(page: number, reason: number): false {
    this.#faultPage = page
    this.#faultReason = reason
    return false
  }

  /** The last failure. Not reset by a success. */
  get fault(): Fault {
    const address = kvaFrom(this.#faultPage, 0)
    if (this.memory.released) return { address, reason: "Released" }
    const reason = this.#faultReason
    return {
      address,
      reason: reason === TOO_LONG ? "TooLong" : reason === OUT_OF_MEMORY ? "OutOfMemory" : "NotPresent"
    }
  }

  /** The last failure, as data. */
  get faultReason(): Reason {
    return unreadable(this.faultText)
  }

  /** The last failure for a message: `0xffffc90000000000 is not mapped`. */
  get faultText(): string {
    const { address, reason } = this.fault
    const why = {
      NotPresent: "is not mapped",
      OutOfMemory: this.#absence,
      TooLong: "is asked for too many bytes",
      Released: RELEASED
    }
    return `${hex(address)} ${why[reason]}`
  }

  get #absence(): string {
    const page = this.#faultPage
    const pa = this.isDirect(page) ? (page - this.#directBase) * 4096 : this.table.walk(page)
    return pa < 0 ? this.table.absence : this.memory.absence(pa)
  }

  /** The physical address of a byte, or negative. */
  translate(address: bigint): number {
    const pa = this.translatePage(kvaPage(address))
    if (pa < 0) this.#fail(kvaPage(address), pa)
    return pa < 0 ? pa : pa + kvaOffset(address)
  }

  /** A copy of `len` bytes, at most `READ_LIMIT`, into a buffer that `room` makes; undefined sets `fault`. */
  read(
    address: bigint,
    len: number,
    room = (bytes: number): Uint8Array => new Uint8Array(bytes)
  ): Uint8Array | undefined {
    const page = kvaPage(address)
    const offset = kvaOffset(address)
    if (!(len >= 0 && len <= READ_LIMIT)) {
      this.#fail(page, TOO_LONG)
      return undefined
    }
    const last = this.translatePage(page + Math.floor((offset + Math.max(len, 1) - 1) / 4096))
    if (last < 0) { // before anything is allocated for it
      this.#fail(page + Math.floor((offset + Math.max(len, 1) - 1) / 4096), last)
      return undefined
    }
    const out = room(len)
    return this.#copy(page, offset, out, len) ? out : undefined
  }

  /** Like `read`, but borrowed from the memory where that is in one piece. */
  borrow(address: bigint, len: number): Uint8Array | undefined {
    if (!(len >= 0 && len <= READ_LIMIT)) return this.read(address, len)
    const offset = kvaOffset(address)
    const pa = this.#piece(kvaPage(address), offset + len)
    if (pa < 0 || !this.memory.seek(pa + offset, len)) return this.read(address, len)
    const { at, view } = this.memory
    return new Uint8Array(view.buffer, view.byteOffset + at, len)
  }

  /** -1 where it cannot be read. */
  u32(address: bigint): number {
    return this.window(kvaPage(address), kvaOffset(address), 4) ? this.view.getUint32(this.at, true) : -1
  }

  /** The little-endian 64 bits at a virtual address; undefined where it is not mapped. */
  u64(address: bigint): bigint | undefined {
    return this.window(kvaPage(address), kvaOffset(address), 8) ? this.view.getBigUint64(this.at, true) : undefined
  }

  /** All of `bytes`, or none where any byte is not mapped or the memory is read-only. */
  write(address: bigint, bytes: Uint8Array): boolean {
    const page = kvaPage(address)
    const offset = kvaOffset(address)
    if (bytes.length > READ_LIMIT) return this.#fail(page, TOO_LONG)
    if (!this.memory.writable) return false
    for (let i = 0; i * 4096 < offset + bytes.length; i++) {
      const pa = this.translatePage(page + i)
      if (pa < 0) return this.#fail(page + i, pa)
      const from = i === 0 ? offset : 0
      if (!this.memory.has(pa + from, Math.min(4096, offset + bytes.length - i * 4096) - from)) {
        return this.#fail(page + i, OUT_OF_MEMORY)
      }
    }
    for (let done = 0; done < bytes.length;) {
      const from = (offset + done) & 4095
      const part = Math.min(bytes.length - done, 4096 - from)
      const pa = this.translatePage(page + Math.floor((offset + done) / 4096))
      this.memory.write(pa + from, bytes.subarray(done, done + part))
      done += part
    }
    return true
  }
}
