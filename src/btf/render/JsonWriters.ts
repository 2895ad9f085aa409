import type { ByteSink } from "./ByteSink.ts"
import { writeHex, writeHexByte, writeI32, writeI64, writeU32, writeU64 } from "./Digits.ts"
import type { JsonOp } from "./JsonPlan.ts"
import { treeOf } from "./TreeCodec.ts"
import type { NameLiterals } from "./ValueNames.ts"

export const QUOTE = 0x22
export const COMMA = 0x2c
const OPEN = 0x5b
const BACKSLASH = 0x5c
const CLOSE = 0x5d
const TRUE = 0x6575_7274 // "true"
const FALSE = 0x736c_6166 // "fals"

/** Write a value by way of its tree. */
export const writeSlow = (op: JsonOp, view: DataView, at: number, sink: ByteSink): void => {
  if (op.slow !== null) sink.tree(treeOf(op.slow, view, at, view.byteLength, Infinity))
}

/** `true` or `false`. */
export const writeBool = (out: DataView, pos: number, value: boolean): number => {
  if (value) {
    out.setInt32(pos, TRUE, true)
    return pos + 4
  }
  out.setInt32(pos, FALSE, true)
  out.setUint8(pos + 4, 0x65)
  return pos + 5
}

/** An enum's name, or the number. */
export const writeNamed = (out: DataView, pos: number, value: number, names: NameLiterals): number => {
  const name = names.rangeOf(value)
  if (name === undefined) return value < 0 ? writeI32(out, pos, value) : writeU32(out, pos, value)
  const { words } = names
  let at = pos
  for (let word = name.from; word < name.to; word++, at += 4) out.setInt32(at, words[word], true)
  return pos + name.length
}

/** Whether four bytes all are printable ASCII that needs no backslash. */
const isPlain = (word: number): boolean =>
  ((word | (word - 0x2020_2020) | (word + 0x0101_0101) | zeroByte(word ^ 0x2222_2222) | zeroByte(word ^ 0x5c5c_5c5c))
    & 0x8080_8080) === 0

/** The highest bit of a byte is set where there is a byte that is zero; of other bytes maybe too, but only then. */
const zeroByte = (word: number): number => (word - 0x0101_0101) & ~word

/**
 * A char array as a string if it is one (`textLength` in TreeCodec.ts), else as numbers. The result is the complement of
 * the position where the string hides bytes: those behind its NUL that are not 0.
 */
export const writeText = (
  out: DataView,
  pos: number,
  view: DataView,
  at: number,
  count: number,
  signed: boolean
): number => {
  let end = pos
  out.setUint8(end++, QUOTE)
  let index = 0
  for (let word = 0; index + 4 <= count && isPlain(word = view.getInt32(at + index, true)); index += 4, end += 4) {
    out.setInt32(end, word, true)
  }
  for (; index < count; index++) {
    const byte = view.getUint8(at + index)
    if (byte === 0) {
      out.setUint8(end++, QUOTE)
      return isZero(view, at + index, at + count) ? end : ~end // its NUL with it: by words
    }
    if (byte < 0x20 || byte > 0x7e) return writeChars(out, pos, view, at, count, signed)
    if (byte === QUOTE || byte === BACKSLASH) out.setUint8(end++, BACKSLASH)
    out.setUint8(end++, byte)
  }
  return writeChars(out, pos, view, at, count, signed)
}

/** A char array as numbers. */
const writeChars = (
  out: DataView,
  pos: number,
  view: DataView,
  at: number,
  count: number,
  signed: boolean
): number => {
  out.setUint8(pos++, OPEN)
  for (let index = 0; index < count; index++) {
    if (index > 0) out.setUint8(pos++, COMMA)
    pos = signed ? writeI32(out, pos, view.getInt8(at + index)) : writeU32(out, pos, view.getUint8(at + index))
  }
  out.setUint8(pos, CLOSE)
  return pos + 1
}

/** Whether all bytes of a range are 0. */
const isZero = (view: DataView, from: number, to: number): boolean => {
  let bits = 0
  for (; from + 4 <= to; from += 4) bits |= view.getInt32(from, true)
  for (; from < to; from++) bits |= view.getUint8(from)
  return bits === 0
}

/** The writers that the functions made by JsonSource.ts call by name. */
export const writers = {
  writeU32,
  writeI32,
  writeU64,
  writeI64,
  writeHex,
  writeHexByte,
  writeBool,
  writeNamed,
  writeText,
  writeSlow
}
