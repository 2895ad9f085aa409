import { FormatError } from "../FormatError.ts"

/**
 * Section types, include/uapi/linux/elf.h and the System V gABI, chapter 4.
 *
 * @since 0.1.0
 * @category constants
 */
export const SectionType = { Null: 0, Progbits: 1, Symtab: 2, Strtab: 3, Dynamic: 6, Nobits: 8 } as const

/**
 * Segment types, include/uapi/linux/elf.h.
 *
 * @since 0.1.0
 * @category constants
 */
export const SegmentType = { Load: 1, Dynamic: 2, Interp: 3, Note: 4 } as const

/**
 * One `Elf64_Shdr`. `offset`, `size` and `entsize` in bytes; `addr` is a virtual address.
 *
 * @since 0.1.0
 * @category models
 */
export interface ElfSection {
  readonly index: number
  readonly name: string
  readonly type: number
  readonly flags: number
  readonly addr: bigint
  readonly offset: number
  readonly size: number
  readonly link: number
  readonly entsize: number
}

/**
 * One `Elf64_Phdr`. `offset`, `filesz` and `memsz` in bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface ElfSegment {
  readonly type: number
  readonly flags: number
  readonly offset: number
  readonly vaddr: bigint
  readonly paddr: bigint
  readonly filesz: number
  readonly memsz: number
}

/**
 * Requests to the dynamic linker: `libraries` are DT_NEEDED; the paths keep `$ORIGIN` and the like as written.
 *
 * @since 0.1.0
 * @category models
 */
export interface ElfNeeded {
  readonly libraries: ReadonlyArray<string>
  readonly runpath: ReadonlyArray<string>
  readonly rpath: ReadonlyArray<string>
}

const HEADER_SIZE = 64
const SECTION_HEADER_SIZE = 64
const SEGMENT_HEADER_SIZE = 56
const SYMBOL_SIZE = 24

/** Names may share their tails, and a hostile file lets every header share one long name: bound what that makes. */
const STRINGS_PER_BYTE = 8

const DT_NULL = 0
const DT_NEEDED = 1
const DT_STRTAB = 5
const DT_RPATH = 15
const DT_RUNPATH = 29

const STB_LOCAL = 0
const STT_SECTION = 3
const STT_FILE = 4
const SHN_UNDEF = 0
const SHN_XINDEX = 0xffff
const PN_XNUM = 0xffff

/**
 * Read the headers of an ELF64 little-endian file. Contents stay where they are: `data`, `symbols` and `needed` read
 * them when asked.
 * @param bytes the whole file; borrowed for the life of the result
 * @param subject what errors call the file, usually its path
 * @throws FormatError, here and from the result's methods; wrap in `parsing`
 * @see include/uapi/linux/elf.h `struct elf64_hdr`, `elf64_shdr`, `elf64_phdr`, v6.12
 * @since 0.1.0
 * @category parsing
 */
export const parseElf = (bytes: Uint8Array, subject: string): ElfFile => new ElfFile(bytes, subject)

/**
 * A parsed ELF file; see `parseElf`.
 *
 * @since 0.1.0
 * @category models
 */
export class ElfFile {
  readonly sections: ReadonlyArray<ElfSection>
  readonly segments: ReadonlyArray<ElfSegment>
  /** `e_type`: 1 relocatable, 2 executable, 3 shared, 4 core. */
  readonly type: number
  /** `e_machine`: 62 is x86-64. */
  readonly machine: number
  readonly entry: bigint
  private readonly view: DataView
  private readonly text: Buffer
  private stringBytes = 0
  private symbolMap: ReadonlyMap<string, bigint> | undefined

  constructor(readonly bytes: Uint8Array, readonly subject: string) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.view = view
    this.text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    if (bytes.length < 4 || view.getUint32(0, false) !== 0x7f454c46) throw this.broken(0, "the magic bytes 7f 45 4c 46")
    if (bytes.length < HEADER_SIZE) throw this.broken(bytes.length, `a header of ${HEADER_SIZE} bytes`)
    if (bytes[4] !== 2 || bytes[5] !== 1) throw this.broken(4, "a 64-bit little-endian file")
    this.type = view.getUint16(16, true)
    this.machine = view.getUint16(18, true)
    this.entry = view.getBigUint64(24, true)
    const sectionsAt = this.number(40)
    const counts = sectionsAt === 0 ? { sections: 0, segments: 0, names: 0 } : this.extendedCounts(sectionsAt)
    const segmentCount = view.getUint16(56, true)
    this.segments = this.readSegments(segmentCount === PN_XNUM && sectionsAt !== 0 ? counts.segments : segmentCount)
    this.sections = this.readSections(sectionsAt, counts.sections, counts.names)
  }

  /** The first section of that name. */
  section(name: string): ElfSection | undefined {
    return this.sections.find((section) => section.name === name)
  }

  /** A section's bytes, borrowed; none for SHT_NOBITS. */
  data(section: ElfSection): Uint8Array {
    if (section.type === SectionType.Nobits) return this.bytes.subarray(0, 0)
    if (section.offset + section.size > this.bytes.length) {
      throw this.broken(section.offset, `the ${section.size} bytes of section ${section.name} inside the file`)
    }
    return this.bytes.subarray(section.offset, section.offset + section.size)
  }

  /** Where in the file the byte at a virtual address is, by the loadable segments. */
  offsetOf(vaddr: bigint): number | undefined {
    for (const segment of this.segments) {
      if (segment.type !== SegmentType.Load || vaddr < segment.vaddr) continue
      const inside = vaddr - segment.vaddr
      if (inside < BigInt(segment.filesz)) return segment.offset + Number(inside)
    }
    return undefined
  }

  /**
   * The defined symbols of `.symtab` by name, empty in a stripped file; read at the first call. Of several with one name
   * a global or weak one wins, then the first.
   */
  symbols(): ReadonlyMap<string, bigint> {
    return this.symbolMap ??= this.readSymbols()
  }

  /** The dynamic linker's path (PT_INTERP). */
  get interpreter(): string | undefined {
    const segment = this.segments.find((each) => each.type === SegmentType.Interp)
    return segment === undefined
      ? undefined
      : this.string(segment.offset, segment.offset + segment.filesz, segment.offset)
  }

  /** The requests of PT_DYNAMIC to the dynamic linker; three empty lists in a static file. */
  needed(): ElfNeeded {
    const libraries: Array<string> = []
    const runpath: Array<string> = []
    const rpath: Array<string> = []
    const dynamic = this.segments.find((each) => each.type === SegmentType.Dynamic)
    if (dynamic !== undefined) {
      this.within(dynamic.offset, dynamic.filesz, "the dynamic segment")
      const entries: Array<readonly [tag: number, value: bigint]> = []
      for (let at = dynamic.offset; at + 16 <= dynamic.offset + dynamic.filesz; at += 16) {
        const tag = Number(this.view.getBigInt64(at, true))
        if (tag === DT_NULL) break
        entries.push([tag, this.view.getBigUint64(at + 8, true)])
      }
      const stringsVaddr = entries.find(([tag]) => tag === DT_STRTAB)?.[1]
      const strings = stringsVaddr === undefined ? undefined : this.offsetOf(stringsVaddr)
      for (const [tag, value] of entries) {
        if (tag !== DT_NEEDED && tag !== DT_RPATH && tag !== DT_RUNPATH) continue
        if (strings === undefined) throw this.broken(dynamic.offset, "a DT_STRTAB inside a loadable segment")
        const text = this.string(strings, this.bytes.length, strings + Number(value))
        if (tag === DT_NEEDED) libraries.push(text)
        else for (const path of text.split(":")) if (path !== "") (tag === DT_RPATH ? rpath : runpath).push(path)
      }
    }
    return { libraries, runpath, rpath }
  }

  private broken(offset: number, expected: string): FormatError {
    return new FormatError({ format: "ELF", subject: this.subject, offset, expected })
  }

  private within(offset: number, length: number, what: string): void {
    if (offset + length > this.bytes.length) {
      throw this.broken(offset, `${what} (${length} bytes) inside the file of ${this.bytes.length} bytes`)
    }
  }

  /** A u64 as a number: past 2^53 it is inexact, and then larger than any file, so the bounds checks refuse it. */
  private number(at: number): number {
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 2 ** 32
  }

  /** The NUL-terminated UTF-8 string at `at`, which must lie in `start..end` (bytes of the file). */
  private string(start: number, end: number, at: number): string {
    const stop = Math.min(end, this.bytes.length)
    if (at >= start && at < stop) {
      const nul = this.text.indexOf(0, at)
      if (nul >= 0 && nul < stop) {
        this.stringBytes += nul - at
        if (this.stringBytes > STRINGS_PER_BYTE * this.bytes.length) {
          throw this.broken(at, `names that together take at most ${STRINGS_PER_BYTE} times the size of the file`)
        }
        return this.text.toString("utf8", at, nul)
      }
    }
    throw this.broken(at, "a NUL-terminated string inside its table")
  }

  /** Counts past 16 bits live in section header 0 (gABI, "Section header table index"). */
  private extendedCounts(sectionsAt: number): { sections: number; segments: number; names: number } {
    this.within(sectionsAt, SECTION_HEADER_SIZE, "the first section header")
    const sections = this.view.getUint16(60, true)
    const names = this.view.getUint16(62, true)
    return {
      sections: sections === 0 ? this.number(sectionsAt + 32) : sections,
      segments: this.view.getUint32(sectionsAt + 44, true),
      names: names === SHN_XINDEX ? this.view.getUint32(sectionsAt + 40, true) : names
    }
  }

  private readSegments(count: number): ReadonlyArray<ElfSegment> {
    if (count === 0) return []
    const start = this.number(32)
    if (this.view.getUint16(54, true) !== SEGMENT_HEADER_SIZE) {
      throw this.broken(54, `program headers of ${SEGMENT_HEADER_SIZE} bytes`)
    }
    this.within(start, count * SEGMENT_HEADER_SIZE, `${count} program headers`)
    return Array.from({ length: count }, (_, index) => {
      const at = start + index * SEGMENT_HEADER_SIZE
      return {
        type: this.view.getUint32(at, true),
        flags: this.view.getUint32(at + 4, true),
        offset: this.number(at + 8),
        vaddr: this.view.getBigUint64(at + 16, true),
        paddr: this.view.getBigUint64(at + 24, true),
        filesz: this.number(at + 32),
        memsz: this.number(at + 40)
      }
    })
  }

  private readSections(start: number, count: number, names: number): ReadonlyArray<ElfSection> {
    if (count === 0) return []
    if (this.view.getUint16(58, true) !== SECTION_HEADER_SIZE) {
      throw this.broken(58, `section headers of ${SECTION_HEADER_SIZE} bytes`)
    }
    this.within(start, count * SECTION_HEADER_SIZE, `${count} section headers`)
    if (names >= count) throw this.broken(62, `a name table among the ${count} sections`)
    const namesAt = this.number(start + names * SECTION_HEADER_SIZE + 24)
    const namesEnd = namesAt + this.number(start + names * SECTION_HEADER_SIZE + 32)
    return Array.from({ length: count }, (_, index) => {
      const at = start + index * SECTION_HEADER_SIZE
      return {
        index,
        // section 0 is a placeholder; a file whose e_shstrndx is SHN_UNDEF has no names at all
        name: index === 0 || names === SHN_UNDEF
          ? ""
          : this.string(namesAt, namesEnd, namesAt + this.view.getUint32(at, true)),
        type: this.view.getUint32(at + 4, true),
        flags: this.number(at + 8),
        addr: this.view.getBigUint64(at + 16, true),
        offset: this.number(at + 24),
        size: this.number(at + 32),
        link: this.view.getUint32(at + 40, true),
        entsize: this.number(at + 56)
      }
    })
  }

  private readSymbols(): ReadonlyMap<string, bigint> {
    const symbols = new Map<string, bigint>()
    const table = this.sections.find((section) => section.type === SectionType.Symtab)
    if (table === undefined) return symbols
    const strings = this.sections[table.link]
    if (strings?.type !== SectionType.Strtab) throw this.broken(table.offset, "a string table linked to .symtab")
    this.within(table.offset, table.size, ".symtab")
    const locals = new Set<string>()
    const end = strings.offset + strings.size
    for (let at = table.offset; at + SYMBOL_SIZE <= table.offset + table.size; at += SYMBOL_SIZE) {
      const nameOffset = this.view.getUint32(at, true)
      const info = this.view.getUint8(at + 4)
      const kind = info & 0xf
      if (nameOffset === 0 || kind === STT_SECTION || kind === STT_FILE) continue
      if (this.view.getUint16(at + 6, true) === SHN_UNDEF) continue
      const name = this.string(strings.offset, end, strings.offset + nameOffset)
      const local = info >> 4 === STB_LOCAL
      if (!symbols.has(name) || (!local && locals.delete(name))) {
        if (local) locals.add(name)
        symbols.set(name, this.view.getBigUint64(at + 8, true))
      }
    }
    return symbols
  }
}
