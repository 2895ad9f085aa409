import { Buffer } from "node:buffer"
import { kvaPage } from "../../src/core/Address.ts"
import { X86PageTable } from "../../src/memory/arch/X86PageTable.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { KernelSpace } from "../../src/memory/KernelSpace.ts"

/**
 * A kernel of 512 KiB that describes itself as a real one does: page tables, VMCOREINFO, kallsyms, BTF, per-CPU offsets.
 * Made from the kernel's documents, not with the code under test.
 */
export interface MadeKernelOptions {
  readonly levels?: 4 | 5
  /** KASLR's shift of the image, bytes. */
  readonly shift?: bigint
  readonly directBase?: bigint
  readonly release?: string
  /** How kallsyms has addresses: before v6.15, to v6.19, and since. */
  readonly encoding?: "absolute per-CPU" | "relative to the base" | "relative to its place"
  /** Whether the offsets are behind the tokens (v6.4 and newer) or before the names. */
  readonly offsetsLast?: boolean
  /**
   * The order of names, behind the offsets where these are last (v6.4 and newer), else before the tokens: by all of a name,
   * or as Clang's LTO has it, by what is before its first dot. Without it there is none.
   */
  readonly ordered?: "whole" | "to the dot" | undefined
  /** More symbols than those of what is in the image: `filler_0` … */
  readonly fillers?: number
  /** Symbols for other things of the image, and their size in bytes. They are zeros. */
  readonly objects?: { readonly [symbol: string]: number }
  readonly btf?: Uint8Array | "none"
  readonly cpuOffsets?: ReadonlyArray<bigint>
  readonly possibleCpus?: number
  /** Leave out the page with `vmcoreinfo_data`, or the one with the note. */
  readonly without?: ReadonlyArray<"data" | "note">
}

export const LINKED = 0xffff_ffff_8100_0000n
const IMAGE_MAP = 0xffff_ffff_8000_0000n
const PAGE = 4096
/** Of its memory. */
export const PAGES = 128
/** Physical address of the image: a multiple of 2 MiB plus nothing, as the boot code loads it. */
export const LOADED = 0x20_0000
export const IMAGE_PAGES = 80
export const LONG_NAME = `long_${"x".repeat(295)}`
const BANNER = "Linux version 6.12.0-made (someone@somewhere) (gcc 12) #1 SMP made for tests\n"

export class MadeKernel {
  readonly bytes = new Uint8Array(PAGES * PAGE)
  readonly view = new DataView(this.bytes.buffer)
  readonly options: Required<Omit<MadeKernelOptions, "ordered">> & Pick<MadeKernelOptions, "ordered">
  readonly symbols = new Map<string, bigint>()
  readonly root: number
  readonly physBase: bigint
  readonly notePages: Array<number> = []
  #free = LOADED + IMAGE_PAGES * PAGE
  #image = LOADED

  constructor(options: MadeKernelOptions = {}) {
    this.options = {
      levels: 4,
      shift: 0x0a20_0000n,
      directBase: options.levels === 5 ? 0xff11_0003_c000_0000n : 0xffff_8882_4000_0000n,
      release: "6.12.0-made",
      encoding: "absolute per-CPU",
      offsetsLast: true,
      fillers: 0,
      objects: {},
      btf: madeBtf(),
      cpuOffsets: [0x1000_0000n, 0x1000_8000n],
      possibleCpus: 0b11,
      without: [],
      ...options
    }
    const { btf, cpuOffsets, directBase, possibleCpus, release, shift } = this.options
    this.physBase = BigInt(LOADED) - (LINKED + shift - IMAGE_MAP)
    this.root = this.place("swapper_pg_dir", new Uint8Array(PAGE), PAGE)
    for (let i = 0; i < IMAGE_PAGES; i++) this.map(LINKED + shift + BigInt(i * PAGE), LOADED + i * PAGE)
    for (let i = 0; i < PAGES; i++) this.map(directBase + BigInt(LOADED + i * PAGE), LOADED + i * PAGE)

    const uts = Buffer.alloc(16 + 65 * 6)
    uts.write(release, 16 + 130, "latin1")
    this.place("_stext", Uint8Array.of(0xc3, 0xc3))
    this.place("linux_banner", Buffer.from(`${BANNER}\0`, "latin1"))
    this.place("__start_notes", Buffer.from("a build id"))
    this.place("__stop_notes", new Uint8Array(8))
    this.place("init_uts_ns", uts)
    this.place("nr_cpu_ids", words32(64))
    this.place("__cpu_possible_mask", words64(BigInt(possibleCpus)))
    this.place("__per_cpu_offset", words64(...cpuOffsets, ...Array.from({ length: 64 - cpuOffsets.length }, () => 0n)))
    this.place("page_offset_base", words64(directBase))
    for (const name of ["map_idr", "prog_idr", "link_idr"]) this.place(name, new Uint8Array(24))
    if (btf !== "none") {
      this.place("__start_BTF", btf, 8)
      this.symbols.set("__stop_BTF", this.symbols.get("__start_BTF")! + BigInt(btf.length))
    }
    this.place(LONG_NAME, new Uint8Array(16))
    for (const [name, size] of Object.entries(this.options.objects)) this.place(name, new Uint8Array(size))
    for (let i = 0; i < this.options.fillers; i++) this.place(`filler_${i}`, Uint8Array.of(0xc3), 1)
    this.#placeKallsyms()
    this.#placeNotes()
  }

  /** `base` is where the first byte of `bytes` is in physical memory. */
  static readonly base = LOADED

  memory(): GuestMemory {
    return new GuestMemory([{ start: LOADED, bytes: this.bytes }], { writable: true })
  }

  /** Its virtual memory, with the direct map. */
  space(): KernelSpace {
    return new KernelSpace(
      new X86PageTable(this.memory(), this.root, this.options.levels),
      kvaPage(this.options.directBase)
    )
  }

  /** The physical address of a symbol. */
  physical(name: string): number {
    return Number(this.symbols.get(name)! - IMAGE_MAP + this.physBase)
  }

  set64(pa: number, value: bigint): void {
    this.view.setBigUint64(pa - LOADED, value, true)
  }

  get64(pa: number): bigint {
    return this.view.getBigUint64(pa - LOADED, true)
  }

  /** A fresh page outside the image; its direct-map address is `direct(pa)`. */
  page(): number {
    const pa = this.#free
    this.#free += PAGE
    if (this.#free > LOADED + PAGES * PAGE) throw new Error("the made kernel is full")
    return pa
  }

  direct(pa: number): bigint {
    return this.options.directBase + BigInt(pa)
  }

  /** Map one page of 4 KiB, 2 MiB (level 2) or 1 GiB (level 3). */
  map(address: bigint, pa: number, leaf: 1 | 2 | 3 = 1): void {
    let table = this.root
    for (let level: number = this.options.levels; level > leaf; level--) {
      const at = table + Number((address >> BigInt(12 + 9 * (level - 1))) & 511n) * 8
      if (this.get64(at) === 0n) this.set64(at, BigInt(this.page()) | 0x67n)
      table = Number(this.get64(at) & 0xf_ffff_ffff_f000n)
    }
    const at = table + Number((address >> BigInt(12 + 9 * (leaf - 1))) & 511n) * 8
    // NX, global, dirty, accessed, writable, present, and for a large page PS and PAT
    this.set64(at, BigInt(pa) | 0x8000_0000_0000_0163n | (leaf > 1 ? 0x1080n : 0n))
  }

  /** Put bytes into the image under a symbol; gives their physical address. */
  place(name: string, bytes: Uint8Array, align = 8): number {
    this.#image = Math.ceil(this.#image / align) * align
    const pa = this.#image
    if (pa + bytes.length > LOADED + IMAGE_PAGES * PAGE) throw new Error("the made image is full")
    this.bytes.set(bytes, pa - LOADED)
    this.#image += bytes.length
    this.symbols.set(name, LINKED + this.options.shift + BigInt(pa - LOADED))
    return pa
  }

  /** What the table holds, in its order: per-CPU offsets first when they are absolute. */
  expectedSymbols(): ReadonlyArray<{ readonly name: string; readonly address: bigint }> {
    const image = [...this.symbols].filter(([name]) => !name.startsWith("kallsyms_"))
      .map(([name, address]) => ({ name, address })).sort((a, b) => Number(a.address - b.address))
    return this.options.encoding === "absolute per-CPU"
      ? [{ name: "fixed_percpu_data", address: 0n }, { name: "runqueues", address: 0x3_6400n }, ...image]
      : image
  }

  #placeKallsyms(): void {
    // Tokens stand for themselves, but for a few that stand for more.
    const tokens = Array.from({ length: 256 }, (_, i) => i >= 32 && i < 127 ? String.fromCharCode(i) : "")
    tokens[1] = "per_cpu"
    tokens[2] = "D__"
    tokens[3] = "_BTF"
    const encode = (text: string): Buffer =>
      Buffer.from(
        text.replace(/^D__/, "\x02").replaceAll("per_cpu", "\x01").replaceAll("_BTF", "\x03"),
        "latin1"
      )
    const symbols = this.expectedSymbols()
    const names = symbols.map(({ name }) => {
      const text = encode(`D${name}`)
      const length = text.length < 128 ? [text.length] : [(text.length & 0x7f) | 0x80, text.length >> 7]
      return Buffer.concat([Buffer.from(length), text])
    })
    let end = 0
    const markers = names.flatMap((name, i) => {
      const start = end
      end += name.length
      return i % 256 === 0 ? [start] : []
    })
    let at = 0
    const index = tokens.map((token) => {
      const start = at
      at += token.length + 1
      return start
    })
    if (!this.options.offsetsLast) this.#placeOffsets(symbols)
    this.place("kallsyms_num_syms", words32(symbols.length))
    this.place("kallsyms_names", Buffer.concat(names), this.options.encoding === "relative to its place" ? 4 : 8)
    this.place("kallsyms_markers", words32(...markers))
    if (!this.options.offsetsLast) this.#placeOrder(symbols)
    this.place("kallsyms_token_table", Buffer.from(tokens.map((token) => `${token}\0`).join(""), "latin1"))
    this.place("kallsyms_token_index", new Uint8Array(Uint16Array.from(index).buffer))
    if (!this.options.offsetsLast) return
    this.#placeOffsets(symbols)
    this.#placeOrder(symbols)
  }

  #placeOffsets(symbols: ReadonlyArray<{ readonly name: string; readonly address: bigint }>): void {
    const { encoding } = this.options
    const base = LINKED + this.options.shift
    const at = this.place("kallsyms_offsets", new Uint8Array(symbols.length * 4), 4) - LOADED
    const place = this.symbols.get("kallsyms_offsets")!
    symbols.forEach(({ address }, i) => {
      const offset = encoding === "relative to its place"
        ? address - (place + BigInt(i * 4))
        : encoding === "relative to the base"
        ? address - base
        : address < IMAGE_MAP
        ? address
        : -1n - (address - base)
      this.view.setUint32(at + i * 4, Number(BigInt.asUintN(32, offset)), true)
    })
    if (encoding !== "relative to its place") this.place("kallsyms_relative_base", words64(base))
  }

  #placeOrder(symbols: ReadonlyArray<{ readonly name: string }>): void {
    if (this.options.ordered === undefined) return
    const keyOf = (name: string) => this.options.ordered === "whole" ? name : name.replace(/\..*/, "")
    const order = symbols.map(({ name }, i) => ({ key: Buffer.from(keyOf(name)), i }))
      .toSorted((a, b) => Buffer.compare(a.key, b.key) || a.i - b.i)
    this.place("kallsyms_seqs_of_names", Buffer.from(order.flatMap(({ i }) => [i >> 16, (i >> 8) & 255, i & 255])), 8)
  }

  /** The text that `crash_save_vmcoreinfo_init` writes, as far as it matters, with `replace` done to it. */
  noteText(replace: (text: string) => string = (text) => text): string {
    const symbol = (name: string) => `SYMBOL(${name})=${this.symbols.get(name)!.toString(16)}\n`
    return replace(
      `OSRELEASE=${this.options.release}\nBUILD-ID=00\nPAGESIZE=4096\n${
        symbol("init_uts_ns")
      }OFFSET(uts_namespace.name)=16\n`
        + [
          ..."swapper_pg_dir _stext".split(" "),
          ...[...this.symbols.keys()].filter((name) => name.startsWith("kallsyms_"))
        ]
          .map(symbol).join("")
        + `NUMBER(phys_base)=${this.physBase}\nNUMBER(pgtable_l5_enabled)=${this.options.levels === 5 ? 1 : 0}\n`
        + `KERNELOFFSET=${this.options.shift.toString(16)}\n`
    )
  }

  /** Write a text as `vmcoreinfo_data` (a page), or as `vmcoreinfo_note` (behind a note header). */
  writeNote(pa: number, text: string, form: "data" | "note"): void {
    const at = pa - LOADED
    this.bytes.fill(0, at, at + PAGE)
    if (form === "data") return this.bytes.set(Buffer.from(text, "latin1"), at)
    this.view.setUint32(at, 11, true)
    this.view.setUint32(at + 4, text.length, true)
    this.bytes.set(Buffer.from("VMCOREINFO\0", "latin1"), at + 12)
    this.bytes.set(Buffer.from(text, "latin1"), at + 24)
  }

  #placeNotes(): void {
    for (const form of ["data", "note"] as const) {
      if (this.options.without.includes(form)) continue
      const pa = this.page()
      this.notePages.push(pa)
      this.writeNote(pa, this.noteText(), form)
    }
  }
}

const words32 = (...words: ReadonlyArray<number>): Uint8Array => new Uint8Array(Uint32Array.from(words).buffer)
const words64 = (...words: ReadonlyArray<bigint>): Uint8Array => new Uint8Array(BigUint64Array.from(words).buffer)

/**
 * BTF with the structs that this room reads, laid out as in v6.12: xarray, xa_node, idr, cpumask.
 * @see include/uapi/linux/btf.h
 */
export const madeBtf = (): Uint8Array => {
  const strings: Array<string> = [""]
  let stringBytes = 1
  const text = (name: string): number => {
    const at = stringBytes
    strings.push(name)
    stringBytes += name.length + 1
    return at
  }
  const types: Array<number> = []
  const int = (name: string, size: number) => types.push(text(name), 1 << 24, size, size * 8)
  const array = (type: number, index: number, count: number) => types.push(0, 3 << 24, 0, type, index, count)
  const struct = (
    name: string,
    size: number,
    ...members: ReadonlyArray<readonly [name: string, type: number, at: number]>
  ) => {
    types.push(text(name), (4 << 24) | members.length, size)
    for (const [member, type, at] of members) types.push(text(member), type, at * 8)
  }
  int("unsigned char", 1) // 1
  int("unsigned int", 4) // 2
  int("unsigned long", 8) // 3
  types.push(0, 2 << 24, 0) // 4: void *
  array(4, 2, 64) // 5
  struct("xarray", 16, ["xa_flags", 2, 4], ["xa_head", 4, 8]) // 6
  struct("xa_node", 576, ["shift", 1, 0], ["offset", 1, 1], ["parent", 4, 8], ["slots", 5, 40]) // 7
  struct("idr", 24, ["idr_rt", 6, 0], ["idr_base", 2, 16], ["idr_next", 2, 20]) // 8
  array(3, 2, 1) // 9
  struct("cpumask", 8, ["bits", 9, 0]) // 10
  const header = [0x0001_eb9f, 24, 0, types.length * 4, types.length * 4, stringBytes]
  return Buffer.concat([words32(...header, ...types), Buffer.from(`${strings.join("\0")}\0`, "latin1")])
}
