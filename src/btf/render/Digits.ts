/**
 * Numbers as ASCII, written into a buffer by words: no strings, no `bigint`, nothing allocated. Each function returns
 * the position behind what it wrote, and may scribble on 3 bytes more.
 */

/** `000` to `999`: three digits in the low bytes of a little-endian word. */
const THREE = Int32Array.from(
  { length: 1000 },
  (_, n) => 0x30_3030 | Math.floor(n / 100) | (Math.floor(n / 10) % 10) << 8 | (n % 10) << 16
)

/** `0` to `999` without leading zeros: their digits, and in the highest byte how many they are. */
const SMALL = Int32Array.from({ length: 1000 }, (_, n) => {
  const length = String(n).length
  return THREE[n] >> (3 - length) * 8 | length << 24
})

const BILLION = 1_000_000_000
const QUOTE = 0x22
const MINUS = 0x2d

/** 0 to 999, without leading zeros. Without a branch: the CPU mispredicts one where the lengths of numbers vary. */
const writeSmall = (out: DataView, at: number, n: number): number => {
  const word = SMALL[n]
  out.setInt32(at, word, true)
  return at + (word >> 24)
}

/** 0 to 2^32 - 1; at most 10 bytes. */
export const writeU32 = (out: DataView, at: number, n: number): number => {
  if (n < 1000) return writeSmall(out, at, n)
  if (n < 1_000_000) {
    const thousands = (n / 1000) >>> 0
    const end = writeSmall(out, at, thousands)
    out.setInt32(end, THREE[n - thousands * 1000], true)
    return end + 3
  }
  if (n < BILLION) {
    const millions = (n / 1_000_000) >>> 0
    const rest = n - millions * 1_000_000
    const thousands = (rest / 1000) >>> 0
    const end = writeSmall(out, at, millions)
    out.setInt32(end, THREE[thousands], true)
    out.setInt32(end + 3, THREE[rest - thousands * 1000], true)
    return end + 6
  }
  const billions = (n / BILLION) >>> 0
  out.setUint8(at, 0x30 + billions)
  return writeNine(out, at + 1, n - billions * BILLION)
}

/** -2^31 to 2^31 - 1; at most 11 bytes. */
export const writeI32 = (out: DataView, at: number, n: number): number => {
  if (n >= 0) return writeU32(out, at, n)
  out.setUint8(at, MINUS)
  return writeU32(out, at + 1, -n)
}

/** 0 to 999,999,999 as nine digits. */
const writeNine = (out: DataView, at: number, number: number): number => {
  const n = number | 0 // as an integer, which divides by multiplying
  const millions = (n / 1_000_000) | 0
  const rest = n - millions * 1_000_000
  const thousands = (rest / 1000) | 0
  out.setInt32(at, THREE[millions], true)
  out.setInt32(at + 3, THREE[thousands], true)
  out.setInt32(at + 6, THREE[rest - thousands * 1000], true)
  return at + 9
}

/** `high` × 2^32 + `low`, in quotes from 2^53 on, as JSON keeps it exact; at most 22 bytes. */
export const writeU64 = (out: DataView, at: number, high: number, low: number): number => {
  if (high === 0) return writeU32(out, at, low)
  if (high < 0x20_0000) {
    const billions = ((high * 2 ** 32 + low) / BILLION) >>> 0
    return writeNine(out, writeU32(out, at, billions), low - Math.imul(billions, BILLION))
  }
  out.setUint8(at, QUOTE)
  const end = writeBig(out, at + 1, high, low)
  out.setUint8(end, QUOTE)
  return end + 1
}

/** The 64-bit two's complement `high`:`low`, in quotes beyond ±(2^53 - 1); at most 22 bytes. */
export const writeI64 = (out: DataView, at: number, high: number, low: number): number => {
  if (high < 0x8000_0000) return writeU64(out, at, high, low)
  const low2 = -low >>> 0
  const high2 = (~high + (low === 0 ? 1 : 0)) >>> 0
  if (high2 < 0x20_0000) {
    out.setUint8(at, MINUS)
    return writeU64(out, at + 1, high2, low2)
  }
  out.setUint8(at, QUOTE)
  out.setUint8(at + 1, MINUS)
  const end = writeBig(out, at + 2, high2, low2)
  out.setUint8(end, QUOTE)
  return end + 1
}

/** At least 2^53: a double is near enough to divide by 10^9 with an error of one at most, which the remainder shows. */
const writeBig = (out: DataView, at: number, high: number, low: number): number => {
  let billions = Math.floor((high * 2 ** 32 + low) / BILLION)
  let rest = (low - Math.imul(billions, BILLION)) | 0
  if (rest < 0) {
    billions--
    rest += BILLION
  } else if (rest >= BILLION) {
    billions++
    rest -= BILLION
  }
  const top = (billions / BILLION) >>> 0
  if (top > 0) at = writeNine(out, writeU32(out, at, top), billions - top * BILLION)
  else at = writeU32(out, at, billions)
  return writeNine(out, at, rest)
}

/** Two hex digits of each byte, in a little-endian half-word. */
const HEX = Uint16Array.from({ length: 256 }, (_, n) => {
  const [high, low] = n.toString(16).padStart(2, "0")
  return high.charCodeAt(0) | low.charCodeAt(0) << 8
})

/** Two lower-case hex digits; 2 bytes. */
export const writeHexByte = (out: DataView, at: number, byte: number): number => {
  out.setUint16(at, HEX[byte], true)
  return at + 2
}

/** Lower-case hex without leading zeros; at most 16 bytes. */
export const writeHex = (out: DataView, at: number, high: number, low: number): number => {
  const word = high === 0 ? low : high
  let shift = word === 0 ? 4 : 32 - (Math.clz32(word) & ~3)
  if ((shift & 4) !== 0) {
    shift -= 4
    out.setUint8(at++, HEX[(word >>> shift) & 15] >>> 8)
  }
  while (shift > 0) {
    shift -= 8
    at = writeHexByte(out, at, (word >>> shift) & 255)
  }
  if (high === 0) return at
  out.setInt32(at, HEX[low >>> 24] | HEX[(low >>> 16) & 255] << 16, true)
  out.setInt32(at + 4, HEX[(low >>> 8) & 255] | HEX[low & 255] << 16, true)
  return at + 8
}
