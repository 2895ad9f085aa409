import { GuestMemory } from "../../../src/memory/GuestMemory.ts"

/** Bits of a granule's pages, of the addresses a kernel was built for, and of those that its CPU translates. */
export interface Arm64Form {
  readonly pageBits: 12 | 14 | 16
  readonly vaBits: number
  readonly usedBits: number
}

/** Where its memory begins, as on QEMU's machine `virt`. */
export const START = 0x4000_0000
const ROOM = 64

/** Page tables of arm64 in memory of 64 pages, made from the architecture's documents, not with the code under test. */
export class MadeTables {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly root = START
  readonly levels: number
  readonly lpa2: boolean
  readonly #page: number
  #free: number

  constructor(readonly form: Arm64Form) {
    this.#page = 2 ** form.pageBits
    this.bytes = new Uint8Array(ROOM * this.#page)
    this.view = new DataView(this.bytes.buffer)
    this.#free = START + this.#page
    this.lpa2 = form.pageBits < 16 && form.usedBits > 48
    this.levels = Math.ceil((form.usedBits - form.pageBits) / (form.pageBits - 3))
  }

  memory(): GuestMemory {
    return new GuestMemory([{ start: START, bytes: this.bytes }])
  }

  /** Bytes that an entry of a level covers; the last level is 1. */
  span(level: number): number {
    return 2 ** (this.form.pageBits + (this.form.pageBits - 3) * (level - 1))
  }

  /** Where the entry for an address is, in a table of a level. */
  place(table: number, address: bigint, level: number): number {
    const { pageBits, vaBits } = this.form
    const low = pageBits + (pageBits - 3) * (level - 1)
    // the root has PTRS_PER_PGD entries, of which a CPU of fewer bits uses the last; other tables are full
    const bits = level === this.levels ? Math.min(pageBits - 3, vaBits - low) : pageBits - 3
    return table + Number((address >> BigInt(low)) & ((1n << BigInt(bits)) - 1n)) * 8
  }

  /** A descriptor that leads to a physical address: of a table or page (0b11), or of a block (0b01). */
  descriptor(pa: number, kind: 0b11 | 0b01): bigint {
    const address = BigInt(pa)
    const { pageBits } = this.form
    const high = pageBits === 16
      ? (address >> 48n & 15n) << 12n
      : this.lpa2
      ? (address >> 50n & 3n) << 8n
      : 0n
    const mask = this.lpa2 ? (1n << 50n) - 1n : (1n << 48n) - 1n
    // without LPA2 the bits are inner shareable; access flag; PXN, UXN, contiguous and software bits of all kinds
    return (address & mask) | high | (this.lpa2 ? 0n : 3n << 8n) | BigInt(kind) | 0x0078_0000_0000_0400n | 1n << 55n
  }

  set64(pa: number, value: bigint): void {
    this.view.setBigUint64(pa - START, value, true)
  }

  /** Map an address by an entry of level `leaf`; gives where that entry is. */
  map(address: bigint, pa: number, leaf = 1): number {
    let table: number = this.root
    for (let level = this.levels; level > leaf; level--) {
      const at = this.place(table, address, level)
      let next = this.#tables.get(at)
      if (next === undefined) {
        next = this.#free
        this.#free += this.#page
        if (this.#free > START + this.bytes.length) throw new Error("the made memory is full")
        this.#tables.set(at, next)
        this.set64(at, this.descriptor(next, 0b11))
      }
      table = next
    }
    const at = this.place(table, address, leaf)
    this.set64(at, this.descriptor(pa, leaf === 1 ? 0b11 : 0b01))
    return at
  }
  /** By the place of an entry, the table it leads to. */
  readonly #tables = new Map<number, number>()
}
