import type { ByteSink } from "./ByteSink.ts"
import { writeHex, writeHexByte, writeI32, writeI64, writeU32, writeU64 } from "./Digits.ts"
import { Code, type Literal, type Op, type Program } from "./JsonProgram.ts"
import { compileSource } from "./JsonSource.ts"
import { toJson } from "./RenderedValue.ts"
import { treeOf } from "./TreeCodec.ts"

/** Values after which a program is worth a function of its own: to make one costs as much as writing some hundred. */
const HOT = 2048

const QUOTE = 0x22
const COMMA = 0x2c
const OPEN = 0x5b
const BACKSLASH = 0x5c
const CLOSE = 0x5d
const TRUE = 0x6575_7274 // "true"
const FALSE = 0x736c_6166 // "fals"

/** Write the JSON of the value at `base`; all its bytes are in `view`. Hot: nothing is allocated. */
export const run = (program: Program, view: DataView, base: number, sink: ByteSink): void => {
  if (program.writer !== null) return program.writer(view, base, sink)
  if (++program.runs === HOT) program.writer = compileSource(program, writers)
  interpret(program, view, base, sink)
}

/** The numbers that matter are in locals. */
const interpret = (program: Program, view: DataView, base: number, sink: ByteSink): void => {
  const { literals, ops } = program
  let out = sink.view
  let pos = sink.at
  for (let index = 0; index < ops.length; index++) {
    const op = ops[index]
    if (pos + op.room > out.byteLength) {
      sink.at = pos
      sink.ensure(op.room)
      out = sink.view
    }
    const literalEnd = pos + op.length
    for (let word = op.from; word < op.to; word++, pos += 4) out.setInt32(pos, literals[word], true)
    pos = literalEnd
    const at = base + op.at
    switch (op.code) {
      case Code.NOTHING:
        break
      case Code.U8:
        pos = writeU32(out, pos, view.getUint8(at))
        break
      case Code.I8:
        pos = writeI32(out, pos, view.getInt8(at))
        break
      case Code.U16:
        pos = writeU32(out, pos, view.getUint16(at, true))
        break
      case Code.I16:
        pos = writeI32(out, pos, view.getInt16(at, true))
        break
      case Code.U32:
        pos = writeU32(out, pos, view.getUint32(at, true))
        break
      case Code.I32:
        pos = writeI32(out, pos, view.getInt32(at, true))
        break
      case Code.U64:
        pos = writeU64(out, pos, view.getUint32(at + 4, true), view.getUint32(at, true))
        break
      case Code.I64:
        pos = writeI64(out, pos, view.getUint32(at + 4, true), view.getUint32(at, true))
        break
      case Code.BOOL8:
        pos = writeBool(out, pos, view.getUint8(at) !== 0)
        break
      case Code.ENUM32: {
        const value = op.signed ? view.getInt32(at, true) : view.getUint32(at, true)
        pos = writeNamed(out, pos, value, op.names, literals)
        break
      }
      case Code.BITS: {
        let raw = 0
        for (let byte = op.count - 1; byte >= 0; byte--) raw = (raw << 8) | view.getUint8(at + byte)
        raw <<= op.left
        const value = op.signed ? raw >> op.right : raw >>> op.right
        pos = op.bool ? writeBool(out, pos, value !== 0) : writeNamed(out, pos, value, op.names, literals)
        break
      }
      case Code.POINTER:
        out.setInt32(pos, 0x78_3022, true) // "0x behind a quote
        pos = writeHex(out, pos + 3, view.getUint32(at + 4, true), view.getUint32(at, true))
        out.setUint8(pos++, QUOTE)
        break
      case Code.TEXT:
        pos = writeText(out, pos, view, at, op.count, op.signed)
        break
      case Code.BYTES:
        out.setUint8(pos++, QUOTE)
        for (let byte = 0; byte < op.count; byte++) pos = writeHexByte(out, pos, view.getUint8(at + byte))
        out.setUint8(pos++, QUOTE)
        break
      case Code.REPEAT:
        sink.at = pos
        repeat(op, view, at, sink)
        out = sink.view
        pos = sink.at
        break
      case Code.SLOW:
        sink.at = pos
        writeSlow(op, view, at, sink)
        out = sink.view
        pos = sink.at
        break
    }
  }
  sink.at = pos
}

const repeat = (op: Op, view: DataView, at: number, sink: ByteSink): void => {
  if (op.program === null) return
  for (let turn = 0; turn < op.count; turn++) {
    if (turn > 0) sink.byte(COMMA)
    run(op.program, view, at + turn * op.stride, sink)
  }
}

const writeSlow = (op: Op, view: DataView, at: number, sink: ByteSink): void => {
  if (op.slow !== null) sink.text(JSON.stringify(toJson(treeOf(op.slow, view, at, view.byteLength, Infinity))))
}

const writeBool = (out: DataView, pos: number, value: boolean): number => {
  if (value) {
    out.setInt32(pos, TRUE, true)
    return pos + 4
  }
  out.setInt32(pos, FALSE, true)
  out.setUint8(pos + 4, 0x65)
  return pos + 5
}

/** An enum's name, or the number. */
const writeNamed = (
  out: DataView,
  pos: number,
  value: number,
  names: ReadonlyMap<number | bigint, Literal> | null,
  literals: Int32Array
): number => {
  const name = names?.get(value)
  if (name === undefined) return value < 0 ? writeI32(out, pos, value) : writeU32(out, pos, value)
  let at = pos
  for (let word = name.from; word < name.to; word++, at += 4) out.setInt32(at, literals[word], true)
  return pos + name.length
}

/** Whether four bytes all are printable ASCII that needs no backslash. */
const isPlain = (word: number): boolean =>
  ((word | (word - 0x2020_2020) | (word + 0x0101_0101) | zeroByte(word ^ 0x2222_2222) | zeroByte(word ^ 0x5c5c_5c5c))
    & 0x8080_8080) === 0

/** The highest bit of a byte is set where there is a byte that is zero; of other bytes maybe too, but only then. */
const zeroByte = (word: number): number => (word - 0x0101_0101) & ~word

/** A char array as a string if it is one (`textLength` in TreeCodec.ts), else as numbers. */
const writeText = (out: DataView, pos: number, view: DataView, at: number, count: number, signed: boolean): number => {
  let end = pos
  out.setUint8(end++, QUOTE)
  let index = 0
  for (let word = 0; index + 4 <= count && isPlain(word = view.getInt32(at + index, true)); index += 4, end += 4) {
    out.setInt32(end, word, true)
  }
  for (; index < count; index++) {
    const byte = view.getUint8(at + index)
    if (byte === 0) {
      out.setUint8(end, QUOTE)
      return end + 1
    }
    if (byte < 0x20 || byte > 0x7e) break
    if (byte === QUOTE || byte === BACKSLASH) out.setUint8(end++, BACKSLASH)
    out.setUint8(end++, byte)
  }
  out.setUint8(pos++, OPEN)
  for (let index = 0; index < count; index++) {
    if (index > 0) out.setUint8(pos++, COMMA)
    pos = signed ? writeI32(out, pos, view.getInt8(at + index)) : writeU32(out, pos, view.getUint8(at + index))
  }
  out.setUint8(pos, CLOSE)
  return pos + 1
}

/** What the functions that are made of programs call. */
const writers = {
  writeU32,
  writeI32,
  writeU64,
  writeI64,
  writeHex,
  writeHexByte,
  writeBool,
  writeNamed,
  writeText,
  repeat,
  writeSlow
}
export type Writers = typeof writers
