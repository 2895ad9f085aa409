import { Buffer } from "node:buffer"
import { hex } from "../../core/Address.ts"
import type { KernelSpace } from "../KernelSpace.ts"
import type { KernelSymbol, Symbols } from "../Symbols.ts"
import type { Vmcoreinfo } from "../Vmcoreinfo.ts"
import { findKallsyms } from "./FindKallsyms.ts"
import { findByOrder, findByTokens, type FindSymbol } from "./FindSymbol.ts"
import {
  brokenKallsyms,
  kallsymsFromNote,
  type KallsymsTables,
  type OffsetTable,
  SEQUENCE_BYTES,
  type TablePlace
} from "./KallsymsTables.ts"
import { SymbolNames } from "./SymbolNames.ts"

/**
 * How an offset gives an address:
 * - `absolute per-CPU`: one below 0 counts down from the base - 1, others are absolute: x86-64 before v6.15
 * - `relative to the base`: unsigned: v6.15, "kallsyms: Remove KALLSYMS_ABSOLUTE_PERCPU"
 * - `relative to its place`: signed, from the offset's own address: v7.0, "kallsyms: Get rid of kallsyms relative base"
 * @see kernel/kallsyms.c `kallsyms_sym_address`, v6.12, v6.18, v7.3
 * @since 0.1.0
 * @category models
 */
export type KallsymsEncoding = "absolute per-CPU" | "relative to the base" | "relative to its place"

/** By the names of VMCOREINFO those of kallsyms: of the same address, so that they tell the encodings apart. */
const PROOFS = [
  ["_stext", "_stext"],
  ["init_uts_ns", "init_uts_ns"],
  ["swapper_pg_dir", "init_top_pgt"], // x86-64; its own name on arm64
  ["swapper_pg_dir", "swapper_pg_dir"],
  ["kallsyms_names", "kallsyms_names"]
] as const
/**
 * The symbol table that the kernel keeps for its own messages.
 *
 * A name is looked up by the kernel's own order of names where it keeps one and finds known symbols by it (v6.2 and
 * newer); else, and where that cannot tell, by an index of all names that is then made.
 * @see scripts/kallsyms.c `write_src`; kernel/kallsyms.c `kallsyms_sym_address`, v6.12
 * @since 0.1.0
 * @category models
 */
export class Kallsyms implements Symbols {
  readonly count: number
  readonly encoding: KallsymsEncoding
  /** How the tables were found, and what proves the encoding: a line for people. */
  readonly evidence: string
  readonly #names: SymbolNames
  readonly #offsets: DataView
  /** The address that relative offsets count from. */
  readonly #origin: bigint
  readonly #byOrder: FindSymbol | undefined
  #byTokens: FindSymbol | undefined
  /** By a name that was asked for, its symbol's index, or -1. */
  readonly #indices = new Map<string, number>()
  /** Index of the first symbol that is not a per-CPU offset. */
  readonly #firstRelative: number

  /**
   * Of the encodings that the tables allow, the one is taken that agrees with every address that VMCOREINFO gives of a
   * symbol in the table.
   * @param room makes the buffer for copies of the tables
   * @throws FormatError where the tables contradict themselves or `info`; wrap in `parsing`
   */
  constructor(space: KernelSpace, info: Vmcoreinfo, room = (bytes: number): Uint8Array => new Uint8Array(bytes)) {
    const tables = tablesOf(space, info)
    const { count, names, orders } = tables
    // Copies, some 3 MiB: names are asked for after the memory has ended.
    const copies = new Copies(space, room(names.length + count * (SEQUENCE_BYTES + 4)))
    this.count = count
    this.#names = new SymbolNames(tables, copies.keep(copies.need("names", names)))
    for (const place of orders) {
      const order = copies.next(place)
      if (order === undefined || !isOrder(this.#names, order)) continue
      this.#byOrder = findByOrder(this.#names, order)
      copies.keep(order)
      break
    }

    const proved = this.#prove(copies, tables, info)
    this.#origin = proved.origin
    this.encoding = proved.encoding
    this.#offsets = proved.offsets
    this.evidence = proved.evidence
    let first = 0
    if (this.encoding === "absolute per-CPU") {
      while (first < this.count && this.#offsets.getInt32(first * 4, true) >= 0) first++
    }
    this.#firstRelative = first
  }

  /** The table and the encoding that give VMCOREINFO's addresses. */
  #prove(copies: Copies, { foundBy, offsetTables }: KallsymsTables, info: Vmcoreinfo) {
    const known = PROOFS.flatMap(([noted, name]) => {
      const address = info.symbol(noted)
      const index = address === undefined ? -1 : this.#indexOf(name)
      return address === undefined || index < 0 ? [] : [{ name, address, index }]
    })
    const stext = known.find(({ name }) => name === "_stext")
    if (stext === undefined) throw brokenKallsyms(0, "a symbol _stext, there and in VMCOREINFO")
    const tried: Array<string> = []
    for (const table of offsetTables) {
      const offsets = viewOf(copies.need("offsets", table))
      for (const encoding of encodingsOf(table)) {
        const origin = table.base ?? table.address
        const decoded = (index: number) => addressOf(encoding, origin, offsets, index)
        if (known.every(({ address, index }) => decoded(index) === address)) {
          const proof = known.map(({ name }) => name).join(", ")
          const names = this.#byOrder === undefined ? "their first tokens" : "the kernel's order"
          const evidence = `${this.count} symbols, found by ${foundBy}, offsets ${encoding}: `
            + `the address of ${proof} is VMCOREINFO's; names are found by ${names}`
          return { offsets, origin, encoding, evidence }
        }
        tried.push(`${encoding} it is at ${hex(decoded(stext.index))}`)
      }
    }
    throw brokenKallsyms(
      stext.index,
      `offsets that give _stext at ${hex(stext.address)}, as VMCOREINFO does: ${[...new Set(tried)].join("; ")}`
    )
  }

  #address(i: number): bigint {
    return addressOf(this.encoding, this.#origin, this.#offsets, i)
  }

  /** Bytes from the origin, for a symbol that counts from it. */
  #relative(i: number): number {
    return relativeOf(this.encoding, this.#offsets, i)
  }

  #indexOf(name: string): number {
    const i = this.#indices.get(name) ?? this.#byOrder?.(name) ?? this.#indexedByTokens()(name) ?? -1
    this.#indices.set(name, i)
    return i
  }

  #indexedByTokens(): FindSymbol {
    return this.#byTokens ??= findByTokens(this.#names)
  }

  address(name: string): bigint | undefined {
    const i = this.#indexOf(name)
    return i < 0 ? undefined : this.#address(i)
  }

  at(address: bigint): { readonly name: string; readonly offset: number } | undefined {
    const distance = Number(address - this.#origin)
    let low = this.#firstRelative
    let high = this.count - 1
    if (!(low <= high && distance >= this.#relative(low) && distance <= this.#relative(high))) return undefined
    while (low < high) { // ends at the last symbol that is not above the address
      const middle = (low + high + 1) >>> 1
      if (this.#relative(middle) > distance) high = middle - 1
      else low = middle
    }
    let below = low
    while (below > this.#firstRelative && this.#relative(below - 1) === this.#relative(below)) below--
    return { name: this.#names.name(this.#names.start(below)), offset: distance - this.#relative(below) }
  }

  /** All symbols, in the order of the table, with their type letters as `nm` has them. */
  *entries(): Iterable<KernelSymbol & { readonly type: string }> {
    for (let i = 0, start = 0; i < this.count; i++, start = this.#names.next(start)) {
      yield { name: this.#names.name(start), address: this.#address(i), type: this.#names.type(start) }
    }
  }
}

const tablesOf = (space: KernelSpace, info: Vmcoreinfo): KallsymsTables => {
  const tables = kallsymsFromNote(space, info) ?? findKallsyms(space, info)
  if (tables !== undefined) return tables
  throw brokenKallsyms(
    0,
    "kallsyms tables, in VMCOREINFO (v6.0 and newer) or by their structure in the image: was the kernel built with CONFIG_KALLSYMS=y? Or give its vmlinux"
  )
}

const viewOf = (bytes: Buffer): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const encodingsOf = ({ base }: OffsetTable): ReadonlyArray<KallsymsEncoding> =>
  base === undefined ? ["relative to its place"] : ["absolute per-CPU", "relative to the base"]

const addressOf = (encoding: KallsymsEncoding, origin: bigint, offsets: DataView, i: number): bigint => {
  const absolute = encoding === "absolute per-CPU" ? offsets.getInt32(i * 4, true) : -1
  return absolute >= 0 ? BigInt(absolute) : BigInt.asUintN(64, origin + BigInt(relativeOf(encoding, offsets, i)))
}

const relativeOf = (encoding: KallsymsEncoding, offsets: DataView, i: number): number => {
  if (encoding === "relative to the base") return offsets.getUint32(i * 4, true)
  const offset = offsets.getInt32(i * 4, true)
  return encoding === "absolute per-CPU" ? -1 - offset : i * 4 + offset
}

/** Is this the kernel's order of names? Then symbols of every VMCOREINFO are found by it. */
const isOrder = (names: SymbolNames, order: Buffer): boolean => {
  const find = findByOrder(names, order)
  return ["_stext", "init_uts_ns"].every((name) => (find(name) ?? -1) >= 0)
}

/** Copies of tables in one buffer, one behind the other. */
class Copies {
  readonly #space: KernelSpace
  readonly #into: Uint8Array
  #end = 0

  constructor(space: KernelSpace, into: Uint8Array) {
    this.#space = space
    this.#into = into
  }

  /** The bytes of a table, until another is asked for; undefined where it is not in memory. */
  next({ address, length }: TablePlace): Buffer | undefined {
    const bytes = this.#space.read(address, length, () => this.#into.subarray(this.#end, this.#end + length))
    return bytes === undefined ? undefined : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  /** The copy made last stays. */
  keep(copy: Buffer): Buffer {
    this.#end += copy.length
    return copy
  }

  /** As `next`. @throws FormatError where it is not in memory */
  need(name: string, place: TablePlace): Buffer {
    const copy = this.next(place)
    if (copy === undefined) throw brokenKallsyms(0, `kallsyms_${name} to be readable (${this.#space.faultText})`)
    return copy
  }
}
