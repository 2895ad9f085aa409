import { escapedJson, escapeText } from "../../core/EscapeText.ts"
import type { Enumerator } from "../BtfType.ts"
import { asSigned, type EnumRange, enumRange, isSignedIn } from "../EnumSign.ts"

/** A piece of JSON: the words `from` to `to` of some literals, `length` bytes. */
export interface LiteralRange {
  readonly from: number
  readonly to: number
  readonly length: number
}

/** UTF-8 texts, each padded to whole little-endian words, in one growing buffer. */
export class Literals {
  private used = 0
  private bytes = new Uint8Array(64)

  add(text: string): LiteralRange {
    const end = this.used + text.length * 3 + 4
    if (end > this.bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.bytes.length * 2))
      grown.set(this.bytes.subarray(0, this.used))
      this.bytes = grown
    }
    const length = encoder.encodeInto(text, this.bytes.subarray(this.used)).written
    const from = this.used / 4
    this.bytes.fill(0, this.used + length, this.used + length + 3)
    this.used += Math.ceil(length / 4) * 4
    return { from, to: this.used / 4, length }
  }

  words(): Int32Array {
    return new Int32Array(this.bytes.buffer, 0, this.used / 4)
  }
}

const encoder = new TextEncoder()

const isSingleBit = (value: number | bigint): boolean => {
  if (value <= 0) return false
  if (typeof value === "number" && value < 2 ** 31) return (value & (value - 1)) === 0
  return (BigInt(value) & (BigInt(value) - 1n)) === 0n
}

/** Values of an enum whose flags are kept. */
const MOST_FLAGS = 64

/** The names of an enum's values as JSON strings, each made when the first value has it: an enum may have very many. */
export class NameLiterals {
  words: Int32Array = new Int32Array(0)
  private readonly literals = new Literals()
  private readonly ranges = new Map<number | bigint, LiteralRange>()

  constructor(private readonly names: ReadonlyMap<number | bigint, string>) {}

  /** The words of a value's name. */
  rangeOf(value: number | bigint): LiteralRange | undefined {
    const known = this.ranges.get(value)
    if (known !== undefined) return known
    const name = this.names.get(value)
    if (name === undefined) return undefined
    const range = this.literals.add(escapedJson(name))
    this.ranges.set(value, range)
    this.words = this.literals.words()
    return range
  }
}

/**
 * The names of an enum's values: one object for each enum, whatever number of members are of its type, so that nothing is
 * made of all names for each member or each value.
 */
export class ValueNames {
  /** The first name of each value. */
  readonly byValue: ReadonlyMap<number | bigint, string>
  /** Characters of the longest name. */
  readonly longest: number
  private values: ReadonlyMap<string, number | bigint> | undefined
  private singleBits: ReadonlyArray<readonly [mask: bigint, name: string]> | undefined
  /** Those of the first values that were asked for: values of one map have few. */
  private readonly flags = new Map<number | bigint, ReadonlyArray<string>>()
  private flagsLength: number | undefined
  private json: NameLiterals | undefined
  private range: EnumRange | undefined | null = null
  private signed: ValueNames | undefined
  private duplicates: boolean | undefined

  constructor(private readonly enumerators: ReadonlyArray<Enumerator>) {
    const names = new Map<number | bigint, string>()
    let longest = 0
    for (const { name, value } of enumerators) {
      if (name === "" || names.has(value)) continue
      names.set(value, name)
      longest = Math.max(longest, name.length)
    }
    this.byValue = names
    this.longest = longest
  }

  /** Bytes of memory that names of an enum take, or so, once all is made of them that can be. */
  static memoryOf(enumerators: ReadonlyArray<Enumerator>): number {
    let memory = 0
    for (const { name } of enumerators) memory += 256 + name.length * 6
    return memory
  }

  /** The value of a name; of several that have it, the first. */
  valueOf(name: string): number | bigint | undefined {
    if (this.values === undefined) {
      const values = new Map<string, number | bigint>()
      for (const [value, known] of this.byValue) if (!values.has(known)) values.set(known, value)
      this.values = values
    }
    return this.values.get(name)
  }

  /** Do two values have the same name? */
  get hasDuplicates(): boolean {
    return this.duplicates ??= new Set(this.byValue.values()).size < this.byValue.size
  }

  /** The names of the single bits that make up a positive value; empty if some of its bits have none. */
  flagsOf(value: number | bigint): ReadonlyArray<string> {
    if (value <= 0) return []
    let flags = this.flags.get(value)
    if (flags === undefined) {
      flags = this.namesOfBits(BigInt(value))
      if (this.flags.size < MOST_FLAGS) this.flags.set(value, flags)
    }
    return flags
  }

  private namesOfBits(value: bigint): ReadonlyArray<string> {
    const flags: Array<string> = []
    let rest = value
    for (const [mask, name] of this.bits) {
      if ((rest & mask) === 0n) continue
      flags.push(name)
      rest ^= mask
    }
    return rest === 0n ? flags : []
  }

  /** Characters of all single bits' names as text: of the value that has them all. */
  get flagsWidth(): number {
    return this.flagsLength ??= this.bits.reduce((sum, [, name]) => sum + escapeText(name).length + 3, 0)
  }

  private get bits(): ReadonlyArray<readonly [mask: bigint, name: string]> {
    if (this.singleBits === undefined) {
      const bits: Array<readonly [mask: bigint, name: string]> = []
      for (const [value, name] of this.byValue) if (isSingleBit(value)) bits.push([BigInt(value), name])
      this.singleBits = bits
    }
    return this.singleBits
  }

  /** The names as JSON strings. */
  get literals(): NameLiterals {
    return this.json ??= new NameLiterals(this.byValue)
  }

  /** The names by negative values, where an unsigned enum's values are negative if `bits` bits hold them (`isSignedIn`). */
  signedIn(bits: number): ValueNames | undefined {
    if (this.range === null) this.range = enumRange(this.enumerators)
    if (this.range === undefined || !isSignedIn(this.range, bits)) return undefined
    return this.signed ??= new ValueNames(asSigned(this.enumerators))
  }
}
