import type { KernelSpace } from "../KernelSpace.ts"
import type { Symbols } from "../Symbols.ts"

/** Of a function that has more, only this much is looked at, in bytes; each address is then proved, which takes time. */
const MOST_CODE = 16384
const MOST_ADDRESSES = 128
/** `ADD` of a number to 64 bits, which its bit 22 shifts by 12; `LDR` and `STR` of 32 and 64 bits, with an unsigned offset. */
const ADRP = { mask: 0x9f00_0000, bits: 0x9000_0000 }
const ADD = { mask: 0xff80_0000, bits: 0x9100_0000 }
const LOAD_STORE = { mask: 0xbf00_0000, bits: 0xb900_0000 }

/** The addresses in the code of a function of the kernel; of arm64 alone. */
export const addressesUsedBy = (space: KernelSpace, symbols: Symbols, name: string): ReadonlySet<bigint> => {
  const start = space.table.arch === "arm64" ? symbols.address(name) : undefined
  const code = start === undefined ? undefined : space.read(start, lengthOf(symbols, start))
  return start === undefined || code === undefined ? new Set() : addressesInCode(code, start)
}

/**
 * The addresses that arm64 code at `start` makes from its own place: by `adrp` and the instructions that add to its page.
 * Branches are not followed, so a few may be none that the code ever makes: what is at them has to prove them.
 * @see Arm Architecture Reference Manual (DDI 0487), C6.2 "ADRP", "ADD (immediate)", "LDR (immediate)"
 */
export const addressesInCode = (code: Uint8Array, start: bigint): ReadonlySet<bigint> => {
  const found = new Set<bigint>()
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength)
  const registers: Array<bigint | undefined> = []
  for (let at = 0; at + 4 <= code.length && found.size < MOST_ADDRESSES; at += 4) {
    const word = view.getUint32(at, true)
    const is = ({ bits, mask }: typeof ADRP): boolean => ((word & mask) >>> 0) === bits
    const target = word & 31
    const base = registers[word >>> 5 & 31]
    const number = word >>> 10 & 0xfff
    if (is(ADRP)) {
      const pages = BigInt.asIntN(21, BigInt((word >>> 5 & 0x7ffff) << 2 | word >>> 29 & 3))
      registers[target] = BigInt.asUintN(64, ((start + BigInt(at)) >> 12n << 12n) + (pages << 12n))
    } else if (is(ADD)) {
      const sum = base === undefined ? undefined : base + BigInt((word & 0x40_0000) === 0 ? number : number << 12)
      registers[target] = sum
      if (sum !== undefined) found.add(sum)
    } else if (is(LOAD_STORE) && base !== undefined) {
      found.add(base + BigInt(number << (word >>> 30)))
    }
  }
  return found
}

/** To the next symbol, in bytes. */
const lengthOf = (symbols: Symbols, start: bigint): number => {
  let low = 0
  let high = MOST_CODE
  while (low < high) { // ends at the last byte that the symbol is the nearest of
    const middle = (low + high + 1) >>> 1
    if (symbols.at(start + BigInt(middle))?.offset === middle) low = middle
    else high = middle - 1
  }
  return low + 1
}
