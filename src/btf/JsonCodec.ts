import type { ByteSink } from "./ByteSink.ts"
import { writeHex, writeHexByte, writeI32, writeI64, writeU32, writeU64 } from "./Digits.ts"
import { toJson } from "./RenderedValue.ts"
import type { List, Scalar, Shape } from "./Shape.ts"
import { treeOf } from "./TreeCodec.ts"

/** What an operation writes behind its literal. */
const enum Code {
  NOTHING,
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  U64,
  I64,
  BOOL8,
  ENUM32,
  /** A bit-field, or an enum or bool of another size, within 4 bytes. */
  BITS,
  POINTER,
  TEXT,
  BYTES,
  /** A program, `count` times. */
  REPEAT,
  /** By way of the tree: what is too rare for a fast way. */
  SLOW
}

/** A piece of JSON: the words `from` to `to` of the program's literals, `length` bytes. */
interface Literal {
  readonly from: number
  readonly to: number
  readonly length: number
}

/**
 * One step: write a literal, then the value at `at`. Every operation has every field, so that the loop over them meets
 * one kind of object.
 */
interface Op extends Literal {
  readonly code: Code
  readonly at: number
  /** The most bytes it writes, and 4 that it may scribble behind them; a program makes its own room. */
  readonly room: number
  /** Bytes to read, or repetitions. */
  readonly count: number
  /** Bytes between repetitions. */
  readonly stride: number
  /** Of BITS: shifts that cut the field out of 32 bits. */
  readonly left: number
  readonly right: number
  readonly signed: boolean
  readonly bool: boolean
  readonly names: ReadonlyMap<number | bigint, Literal> | null
  readonly program: Program | null
  readonly slow: Shape | null
}

/** How to write a shape: what is small is unrolled into one list, the rest are programs of their own. */
export interface Program {
  readonly ops: ReadonlyArray<Op>
  readonly literals: Int32Array
}

/** Structs and arrays with more leaves than this are programs of their own. */
const UNROLL = 24

const encoder = new TextEncoder()
const programs = new WeakMap<Shape, Program>()

/** The program that writes a shape; made once for each. */
export const programOf = (shape: Shape): Program => {
  const known = programs.get(shape)
  if (known !== undefined) return known
  const assembler = new Assembler()
  assembler.emit(shape, 0, true)
  const program = assembler.finish()
  programs.set(shape, program)
  return program
}

class Assembler {
  private readonly ops: Array<Op> = []
  private readonly words: Array<number> = []
  private pending = ""

  finish(): Program {
    if (this.pending !== "" || this.ops.length === 0) this.op({ code: Code.NOTHING }, 0)
    return { ops: this.ops, literals: Int32Array.from(this.words) }
  }

  emit(shape: Shape, at: number, root = false): void {
    if (!root && shape.leaves > UNROLL) {
      this.op({ code: Code.REPEAT, at, count: 1, program: programOf(shape) }, 0)
      return
    }
    switch (shape.kind) {
      case "scalar":
        return this.scalar(shape, at)
      case "pointer":
        return this.op({ code: Code.POINTER, at }, 20)
      case "float":
        return this.op({ code: Code.SLOW, at, slow: shape }, shape.cost)
      case "bytes":
        return this.op({ code: Code.BYTES, at, count: shape.extent }, shape.cost)
      case "text":
        return this.op({ code: Code.TEXT, at, count: shape.extent, signed: shape.signed }, shape.cost)
      case "struct":
      case "union": {
        let open = "{"
        for (const field of shape.members) {
          this.pending += `${open}${JSON.stringify(field.name)}:`
          this.emit(field.shape, at + field.at)
          open = ","
        }
        this.pending += open === "{" ? "{}" : "}"
        return
      }
      case "array":
        return this.list(shape, at)
      case "unsupported":
        this.pending += JSON.stringify(toJson({ _tag: "unsupported", reason: shape.reason }))
        return
    }
  }

  private list(shape: List, at: number): void {
    this.pending += "["
    if (shape.leaves > UNROLL) {
      const program = programOf(shape.element)
      this.op({ code: Code.REPEAT, at, count: shape.count, stride: shape.stride, program }, 0)
    } else {
      for (let index = 0; index < shape.count; index++) {
        if (index > 0) this.pending += ","
        this.emit(shape.element, at + index * shape.stride)
      }
    }
    if (shape.omitted > 0) this.pending += `${shape.count > 0 ? "," : ""}{"$omitted":${shape.omitted}}`
    this.pending += "]"
  }

  private scalar(shape: Scalar, at: number): void {
    const { bits, signed } = shape
    const start = at + (shape.bit >>> 3)
    const bit = shape.bit & 7
    const bytes = Math.ceil((bit + bits) / 8)
    const names = shape.names.size === 0 ? null : this.names(shape.names)
    if (bit === 0 && (shape.form === "int" || shape.form === "char")) {
      const code = bits === 8
        ? Code.U8
        : bits === 16
        ? Code.U16
        : bits === 32
        ? Code.U32
        : bits === 64
        ? Code.U64
        : Code.NOTHING
      if (code !== Code.NOTHING) return this.op({ code: signed ? code + 1 : code, at: start }, 22)
    }
    if (bit === 0 && bits === 8 && shape.form === "bool") return this.op({ code: Code.BOOL8, at: start }, 5)
    if (bit === 0 && bits === 32 && shape.form === "enum") {
      return this.op({ code: Code.ENUM32, at: start, signed, names }, shape.cost)
    }
    if (bytes > 4) return this.op({ code: Code.SLOW, at, slow: shape }, shape.cost)
    this.op({
      code: Code.BITS,
      at: start,
      count: bytes,
      left: 32 - bit - bits,
      right: 32 - bits,
      signed,
      bool: shape.form === "bool",
      names
    }, shape.cost)
  }

  private names(names: ReadonlyMap<number | bigint, string>): ReadonlyMap<number | bigint, Literal> {
    return new Map(Array.from(names, ([value, name]) => [value, this.literal(JSON.stringify(name))]))
  }

  private literal(text: string): Literal {
    const bytes = encoder.encode(text)
    const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4)
    padded.set(bytes)
    const view = new DataView(padded.buffer)
    const from = this.words.length
    for (let at = 0; at < padded.length; at += 4) this.words.push(view.getInt32(at, true))
    return { from, to: this.words.length, length: bytes.length }
  }

  private op(op: Partial<Op> & Pick<Op, "code">, room: number): void {
    const { from, length, to } = this.literal(this.pending)
    this.pending = ""
    this.ops.push({
      code: op.code,
      from,
      to,
      length,
      at: op.at ?? 0,
      room: length + room + 8,
      count: op.count ?? 0,
      stride: op.stride ?? 0,
      left: op.left ?? 0,
      right: op.right ?? 0,
      signed: op.signed ?? false,
      bool: op.bool ?? false,
      names: op.names ?? null,
      program: op.program ?? null,
      slow: op.slow ?? null
    })
  }
}

const QUOTE = 0x22
const COMMA = 0x2c
const OPEN = 0x5b
const BACKSLASH = 0x5c
const CLOSE = 0x5d
const TRUE = 0x6575_7274 // "true"
const FALSE = 0x736c_6166 // "fals"

/**
 * Write the JSON of the value at `base`; all its bytes are in `view`. Hot: nothing is allocated, and the numbers that
 * matter are in locals.
 */
export const run = (program: Program, view: DataView, base: number, sink: ByteSink): void => {
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

/** A char array as a string if it is one (`textLength` in TreeCodec.ts), else as numbers. */
const writeText = (out: DataView, pos: number, view: DataView, at: number, count: number, signed: boolean): number => {
  let end = pos
  out.setUint8(end++, QUOTE)
  for (let index = 0; index < count; index++) {
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
