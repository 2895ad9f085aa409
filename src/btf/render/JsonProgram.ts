import type { JsonWriter } from "./JsonSource.ts"
import { toJson } from "./RenderedValue.ts"
import type { List, Scalar, Shape } from "./Shape.ts"

/** What an operation writes behind its literal. */
export const Code = {
  NOTHING: 0,
  U8: 1,
  I8: 2,
  U16: 3,
  I16: 4,
  U32: 5,
  I32: 6,
  U64: 7,
  I64: 8,
  BOOL8: 9,
  ENUM32: 10,
  /** A bit-field, or an enum or bool of another size, within 4 bytes. */
  BITS: 11,
  POINTER: 12,
  TEXT: 13,
  BYTES: 14,
  /** A program, `count` times. */
  REPEAT: 15,
  /** By way of the tree: what is too rare for a fast way. */
  SLOW: 16
} as const

/** A piece of JSON: the words `from` to `to` of the program's literals, `length` bytes. */
export interface Literal {
  readonly from: number
  readonly to: number
  readonly length: number
}

/**
 * One step: write a literal, then the value at `at`. Every operation has every field, so that the loop over them meets
 * one kind of object.
 */
export interface Op extends Literal {
  readonly code: number
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
  /** Values written so far … */
  runs: number
  /** … and, once they are many, the function that is made to write them. */
  writer: JsonWriter | null
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
    return { ops: this.ops, literals: Int32Array.from(this.words), runs: 0, writer: null }
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
      case "derived":
        return this.op({ code: Code.SLOW, at, slow: shape }, 0)
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
