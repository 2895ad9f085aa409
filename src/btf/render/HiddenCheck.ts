/**
 * Does the JSON of the value at `at` leave bytes of it undetermined?
 *
 * @since 0.1.0
 * @category models
 */
export type HiddenBytes = (view: DataView, at: number) => boolean

/** Bits from `from` to before `to`, counted from the value's start. */
export interface Span {
  readonly from: number
  readonly to: number
}

/** A string: `at` and `size` in bytes, `at` counted from the value's start. */
export interface TextSpan {
  readonly at: number
  readonly size: number
}

/** Everything that can hide bytes of a value. As data, not as functions, where that is possible: it is looked at in each. */
export interface Hidden {
  /** Bits that are hidden when they are set. In any order; they may overlap. */
  readonly gaps: ReadonlyArray<Span>
  /** Strings that may have bytes behind their NUL. */
  readonly texts: ReadonlyArray<TextSpan>
  readonly checks: ReadonlyArray<HiddenBytes>
}

/** How many things are looked at. */
export const sizeOf = ({ checks, gaps, texts }: Hidden): number => gaps.length + texts.length + checks.length

/** Bytes of gaps up to which they are looked at as a list of words. */
const WORDS_LIMIT = 256

/** Words of a value: the offset of each, and the mask of its bits that are looked at. */
export interface Words {
  readonly places: ReadonlyArray<number>
  readonly masks: ReadonlyArray<number>
  /** The same of single bytes, in front of the words. */
  readonly bytes: ReadonlyArray<readonly [place: number, mask: number]>
}

/** The byte that has a bit: a value of more than 512 MiB has more bits than `>>>` keeps. */
const byteOf = (bit: number): number => Math.floor(bit / 8)

/** The last word ends where the last gap does, so that none reaches beyond the value. */
const wordsOf = (gaps: ReadonlyArray<Span>): Words => {
  const maskAt = new Map<number, number>()
  for (const { from, to } of gaps) {
    for (let byte = byteOf(from); byte <= byteOf(to - 1); byte++) {
      maskAt.set(byte, (maskAt.get(byte) ?? 0) | maskOf(byte, from, to))
    }
  }
  const places: Array<number> = []
  const masks: Array<number> = []
  let rest = [...maskAt].toSorted(([a], [b]) => b - a)
  while (rest.length > 0 && rest[0][0] >= 3) {
    const place = rest[0][0] - 3
    const inside = rest.filter(([byte]) => byte >= place)
    places.push(place)
    masks.push(inside.reduce((word, [byte, mask]) => word | mask << (byte - place) * 8, 0))
    rest = rest.slice(inside.length)
  }
  return { places, masks, bytes: rest }
}

/** Those bits of a byte that lie from `from` to before `to`. */
const maskOf = (byte: number, from: number, to: number): number => {
  const low = byte === byteOf(from) ? 0xff << (from & 7) : 0xff
  const high = byte === byteOf(to - 1) ? 0xff >>> (7 - ((to - 1) & 7)) : 0xff
  return low & high & 0xff
}

const longGapsCheck = (gaps: ReadonlyArray<Span>): HiddenBytes => (view, at) => {
  for (const { from, to } of gaps) {
    const last = byteOf(to - 1)
    for (let byte = byteOf(from); byte <= last; byte++) {
      if ((view.getUint8(at + byte) & maskOf(byte, from, to)) !== 0) return true
    }
  }
  return false
}

/** All that is looked at in each value of a type, and a function that does. */
export interface HiddenLook {
  readonly words: Words
  readonly texts: ReadonlyArray<TextSpan>
  readonly checks: ReadonlyArray<HiddenBytes>
  readonly check: HiddenBytes
}

/** All that must be looked at; null where nothing can be hidden. */
export const hiddenLook = (hidden: Hidden): HiddenLook | null => {
  if (sizeOf(hidden) === 0) return null
  const { gaps, texts } = hidden
  const few = gaps.reduce((sum, { from, to }) => sum + byteOf(to + 7) - byteOf(from), 0) <= WORDS_LIMIT
  const words = wordsOf(few ? gaps : [])
  const checks = few ? hidden.checks : [longGapsCheck(gaps), ...hidden.checks]
  return { words, texts, checks, check: loopCheck(words, texts, checks) }
}

/** Looks at all of it, one after the other. */
export const loopCheck = (
  { bytes, masks, places }: Words,
  texts: ReadonlyArray<TextSpan>,
  checks: ReadonlyArray<HiddenBytes>
): HiddenBytes =>
(view, at) => {
  for (let index = 0; index < places.length; index++) {
    if ((view.getInt32(at + places[index], true) & masks[index]) !== 0) return true
  }
  for (let index = 0; index < bytes.length; index++) {
    if ((view.getUint8(at + bytes[index][0]) & bytes[index][1]) !== 0) return true
  }
  for (let index = 0; index < texts.length; index++) {
    if (hasBytesBehindNul(view, at + texts[index].at, texts[index].size)) return true
  }
  for (let index = 0; index < checks.length; index++) if (checks[index](view, at)) return true
  return false
}

/**
 * Looks at words. The lowest bit that is left of `zero` marks the first byte that is 0, so a word whose NUL has nothing
 * behind it has no bit above that.
 */
const hasBytesBehindNul = (view: DataView, at: number, size: number): boolean => {
  const end = at + (size & ~3)
  let place = at
  let behind = 0
  while (place < end) {
    const word = view.getInt32(place, true)
    place += 4
    const zero = (word - 0x01010101) & ~word & 0x80808080
    if (zero === 0) continue
    behind = word & -(zero & -zero)
    while (place < end) {
      behind |= view.getInt32(place, true)
      place += 4
    }
  }
  return (behind !== 0 || end < at + size) && hasBytesBehind(view, at, size)
}

/** The same, by bytes; text that is not printable is shown as numbers, all of them. */
const hasBytesBehind = (view: DataView, at: number, size: number): boolean => {
  let end = size
  while (end > 0 && view.getUint8(at + end - 1) === 0) end--
  let byte = 0
  while (byte < end && view.getUint8(at + byte) !== 0) byte++
  return byte < end && isPrintable(view, at, byte)
}

/** Is it shown as text? */
const isPrintable = (view: DataView, at: number, length: number): boolean => {
  for (let byte = at; byte < at + length; byte++) {
    const character = view.getUint8(byte)
    if (character < 0x20 || character > 0x7e) return false
  }
  return true
}
