import { Buffer } from "node:buffer"
import { cString } from "../core/CString.ts"
import { type GuestMemory, type MemoryRegion, writtenParts } from "./GuestMemory.ts"

/** `struct elf_note` (12 bytes) and the name `VMCOREINFO` with its NUL, rounded up to 4. */
const NOTE_TEXT = 24
const DATA_BYTES = 4096
const OSRE = 0x4552_534f
const NAME_LENGTH = 11
const MIB = 2 ** 20
const GIB = 2 ** 30
const GIB4 = 4 * GIB

/**
 * The note that the kernel keeps about itself for crash dumps: lines `KEY=value`. Since v6.0 it has the addresses of
 * its kallsyms tables.
 * @see kernel/vmcore_info.c `crash_save_vmcoreinfo_init`; arch/x86/kernel/vmcore_info_64.c, v6.12
 * @since 0.1.0
 * @category models
 */
export class Vmcoreinfo {
  /** The kernel's release, `6.12.117+deb12-cloud-amd64`. */
  readonly release: string

  /** `at` is the text's physical address; -1 where it was not found in memory. */
  constructor(readonly at: number, readonly text: string) {
    this.release = this.#line("OSRELEASE") ?? ""
  }

  /** The text after `key=` on its line. Nothing is indexed: a memory may hold many false notes. */
  #line(key: string): string | undefined {
    const at = `\n${this.text}`.indexOf(`\n${key}=`)
    if (at < 0) return undefined
    const from = at + key.length + 1
    const end = this.text.indexOf("\n", from)
    return this.text.slice(from, end < 0 ? undefined : end)
  }

  /** A `SYMBOL(name)`: its run-time address. */
  symbol(name: string): bigint | undefined {
    return parseHex(this.#line(`SYMBOL(${name})`))
  }

  /** A `NUMBER(name)`: signed and decimal, or unsigned in hex (arm64). */
  number(name: string): bigint | undefined {
    const text = this.#line(`NUMBER(${name})`)
    return text !== undefined && /^(?:-?\d{1,19}|0x[0-9a-f]{1,16})$/.test(text) ? BigInt(text) : undefined
  }

  /** `PAGESIZE`, in bytes. */
  get pageSize(): number | undefined {
    const text = this.#line("PAGESIZE")
    return text !== undefined && /^\d{1,6}$/.test(text) ? Number(text) : undefined
  }

  /** `KERNELOFFSET`: run-time minus link-time address of the image, in bytes; 0 without KASLR. */
  get shift(): bigint {
    return parseHex(this.#line("KERNELOFFSET")) ?? 0n
  }

  /** An `OFFSET(struct.member)`, in bytes. */
  offset(member: string): number | undefined {
    const text = this.#line(`OFFSET(${member})`)
    return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined
  }
}

const parseHex = (text: string | undefined): bigint | undefined =>
  text !== undefined && /^[0-9a-f]{1,16}$/.test(text) ? BigInt(`0x${text}`) : undefined

/**
 * Call `accept` with every text that could be a VMCOREINFO until it says yes; the first that it accepts: that which the
 * memory came with, then those in it.
 *
 * Both copies that a kernel keeps start at the start of a page: `vmcoreinfo_data` (`get_zeroed_page`) with the text, and
 * `vmcoreinfo_note` (`alloc_pages_exact`) with a note header before it. So one word a page is looked at, not all bytes.
 * Memory that was never written is left out. Many others may have left or forged such a page (an earlier kernel, a nested guest, a program): `accept` must prove it.
 * @param early look only where it mostly is
 * @since 0.1.0
 * @category reading
 */
export const findVmcoreinfo = (
  memory: GuestMemory,
  accept: (info: Vmcoreinfo) => boolean,
  early = false
): Vmcoreinfo | undefined => {
  const said = memory.vmcoreinfo === undefined ? undefined : new Vmcoreinfo(-1, memory.vmcoreinfo)
  if (said !== undefined && accept(said)) return said
  const looked: Array<Span> = []
  for (const span of early ? likelySpans(memory) : [...likelySpans(memory), [0, memory.end] as const]) {
    for (const [from, to] of without(span, looked)) {
      for (const region of memory.stretches(from, to)) {
        const found = findIn(memory, region, accept, Math.max(from - region.start, 0), to - region.start)
        if (found !== undefined) return found
      }
    }
    looked.push(span)
  }
  return undefined
}

/** Physical addresses: the first, and one past the last. */
type Span = readonly [from: number, to: number]

/**
 * Where a kernel that starts takes its first free pages from, the likeliest first: the ends of the highest zone, of which
 * the top is the array of `struct page` (64 bytes for each page of 4096), and the lowest memory that neither the first
 * 16 MiB nor the image takes, which lies at 16 MiB without KASLR. In 33 guests of 5.10 to 7.3, with 128 MiB to 5 GiB of
 * memory, with and without KASLR, all but one had it there. On arm64, where the image lies at the start of memory, it is
 * behind that.
 */
const likelySpans = (memory: GuestMemory): ReadonlyArray<Span> => {
  const { end } = memory
  const start = Math.floor((memory.regions[0]?.start ?? 0) / GIB) * GIB
  const top = end - Math.round(memory.size / 64 / 4096) * 4096
  const spans: ReadonlyArray<Span> = [
    [GIB4, GIB4 + 12 * MIB],
    [top - 12 * MIB, top],
    [16 * MIB, 28 * MIB],
    [64 * MIB, 84 * MIB],
    [GIB4, GIB4 + 64 * MIB],
    [start, start + 84 * MIB],
    [end - 64 * MIB, end]
  ]
  return spans.map(([from, to]) => [Math.max(from, 0), Math.min(to, end)] as const).filter(([from, to]) => from < to)
}

/** The parts of a span that none of the others has. */
const without = (span: Span, others: ReadonlyArray<Span>): ReadonlyArray<Span> =>
  others.reduce<ReadonlyArray<Span>>(
    (parts, [from, to]) =>
      parts.flatMap(([start, end]) => {
        const pieces: ReadonlyArray<Span> = [[start, Math.min(end, from)], [Math.max(start, to), end]]
        return pieces.filter(([start, end]) => start < end)
      }),
    [span]
  )

const findIn = (
  memory: GuestMemory,
  region: MemoryRegion,
  accept: (info: Vmcoreinfo) => boolean,
  from: number,
  to: number
): Vmcoreinfo | undefined => {
  const { bytes, start } = region
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (const [first, end] of writtenParts(region, from, to)) {
    for (
      let at = first + (4096 - (start + first) % 4096) % 4096;
      at < Math.min(end, bytes.length - 3);
      at += 4096
    ) {
      const word = view.getUint32(at, true)
      if (word !== OSRE && word !== NAME_LENGTH) continue
      const info = noteAt(memory, start + at, word)
      if (info !== undefined && accept(info)) return info
    }
  }
  return undefined
}

const noteAt = (memory: GuestMemory, page: number, word: number): Vmcoreinfo | undefined => {
  let at = page
  let length = DATA_BYTES
  if (word === NAME_LENGTH) {
    const head = memory.bytes(page, NOTE_TEXT)
    if (head === undefined || Buffer.from(head.subarray(12, 23)).toString("latin1") !== "VMCOREINFO\0") return undefined
    at += NOTE_TEXT
    length = Math.min(memory.u32(page + 4), DATA_BYTES)
  }
  const bytes = memory.bytes(at, length) ?? memory.bytes(at, 4096 - at % 4096)
  if (bytes === undefined) return undefined
  const text = cString(bytes)
  return text.startsWith("OSRELEASE=") ? new Vmcoreinfo(at, text) : undefined
}
