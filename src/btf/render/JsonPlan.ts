import { escapedJson } from "../../core/EscapeText.ts"
import type { ByteSink } from "./ByteSink.ts"
import type { HiddenLook } from "./HiddenCheck.ts"
import { toJson } from "./RenderedValue.ts"
import type { ArrayPlan, RenderPlan, ScalarPlan } from "./RenderPlan.ts"
import { type LiteralRange, Literals, type NameLiterals } from "./ValueNames.ts"

/** Writes the JSON of the value at `base`, all of whose bytes are in `view`; true where it hides some of them. */
export type JsonWriter = (view: DataView, base: number, sink: ByteSink) => boolean

/** The value that an operation writes after its literal. */
export const JsonOpCode = {
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
  /** Another plan, `count` times. */
  REPEAT: 15,
  /** By way of the tree: what is too rare for a fast way. */
  SLOW: 16
} as const

/**
 * One step: write a literal, then the value at `at`. Every operation has every field, so that the loop over them meets
 * one kind of object.
 */
export interface JsonOp extends LiteralRange {
  readonly code: number
  readonly at: number
  /** The most bytes it writes, and 4 that it may scribble behind them; another plan makes its own room. */
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
  /** An enum's names, which all its uses share. */
  readonly names: NameLiterals | null
  readonly plan: JsonPlan | null
  readonly slow: RenderPlan | null
}

/** The steps that write the JSON of a type: what is small is unrolled into one list, the rest are plans of their own. */
export interface JsonPlan {
  readonly ops: ReadonlyArray<JsonOp>
  readonly literals: Int32Array
  /** Where a value's bytes may be hidden; null: nowhere, or it is not for this plan to say. */
  readonly hidden: HiddenLook | null
  /** Values written so far … */
  runs: number
  /** … and, once they are many, the function that is made to write them. */
  writer: JsonWriter | null
}

/** Structs and arrays with more leaves than this are plans of their own. */
const UNROLL = 24

const plans = new WeakMap<RenderPlan, JsonPlan>()

/** The plan that writes the JSON of a render plan; made once for each. */
const jsonPlan = (plan: RenderPlan): JsonPlan => {
  const known = plans.get(plan)
  if (known !== undefined) return known
  const assembler = new Assembler()
  assembler.emit(plan, 0, true)
  const made = assembler.finish()
  plans.set(plan, made)
  return made
}

/** As `jsonPlan`, of whole values: the writing tells whether bytes are hidden. */
export const valuePlan = (plan: RenderPlan, hidden: HiddenLook | null): JsonPlan => {
  const { literals, ops } = jsonPlan(plan)
  return { ops, literals, hidden, runs: 0, writer: null }
}

class Assembler {
  private readonly ops: Array<JsonOp> = []
  private readonly literals = new Literals()
  private pending = ""

  finish(): JsonPlan {
    if (this.pending !== "" || this.ops.length === 0) this.op({ code: JsonOpCode.NOTHING }, 0)
    return { ops: this.ops, literals: this.literals.words(), hidden: null, runs: 0, writer: null }
  }

  emit(plan: RenderPlan, at: number, root = false): void {
    if (!root && plan.leaves > UNROLL) {
      this.op({ code: JsonOpCode.REPEAT, at, count: 1, plan: jsonPlan(plan) }, 0)
      return
    }
    switch (plan.kind) {
      case "scalar":
        return this.scalar(plan, at)
      case "pointer":
        return this.op({ code: JsonOpCode.POINTER, at }, 20)
      case "float":
        return this.op({ code: JsonOpCode.SLOW, at, slow: plan }, plan.cost)
      case "derived":
        return this.op({ code: JsonOpCode.SLOW, at, slow: plan }, 0)
      case "bytes":
        return this.op({ code: JsonOpCode.BYTES, at, count: plan.extent }, plan.cost)
      case "text":
        return this.op({ code: JsonOpCode.TEXT, at, count: plan.extent, signed: plan.signed }, plan.cost)
      case "struct":
      case "union": {
        let open = "{"
        for (const field of plan.members) {
          this.pending += `${open}${escapedJson(field.name)}:`
          this.emit(field.plan, at + field.at)
          open = ","
        }
        this.pending += open === "{" ? "{}" : "}"
        return
      }
      case "array":
        return this.list(plan, at)
      case "unsupported":
        this.pending += escapedJson(toJson({ _tag: "unsupported", reason: plan.reason }))
        return
    }
  }

  private list(plan: ArrayPlan, at: number): void {
    this.pending += "["
    if (plan.leaves > UNROLL) {
      const element = jsonPlan(plan.element)
      this.op({ code: JsonOpCode.REPEAT, at, count: plan.count, stride: plan.stride, plan: element }, 0)
    } else {
      for (let index = 0; index < plan.count; index++) {
        if (index > 0) this.pending += ","
        this.emit(plan.element, at + index * plan.stride)
      }
    }
    if (plan.omitted > 0) this.pending += `${plan.count > 0 ? "," : ""}{"$omitted":${plan.omitted}}`
    this.pending += "]"
  }

  private scalar(plan: ScalarPlan, at: number): void {
    const { bits, signed } = plan
    const start = at + (plan.bit >>> 3)
    const bit = plan.bit & 7
    const bytes = Math.ceil((bit + bits) / 8)
    const names = plan.names.byValue.size === 0 ? null : plan.names.literals
    if (bit === 0 && (plan.form === "int" || plan.form === "char")) {
      const code = bits === 8
        ? JsonOpCode.U8
        : bits === 16
        ? JsonOpCode.U16
        : bits === 32
        ? JsonOpCode.U32
        : bits === 64
        ? JsonOpCode.U64
        : JsonOpCode.NOTHING
      if (code !== JsonOpCode.NOTHING) return this.op({ code: signed ? code + 1 : code, at: start }, 22)
    }
    if (bit === 0 && bits === 8 && plan.form === "bool") return this.op({ code: JsonOpCode.BOOL8, at: start }, 5)
    if (bit === 0 && bits === 32 && plan.form === "enum") {
      return this.op({ code: JsonOpCode.ENUM32, at: start, signed, names }, plan.cost)
    }
    if (bytes > 4) return this.op({ code: JsonOpCode.SLOW, at, slow: plan }, plan.cost)
    this.op({
      code: JsonOpCode.BITS,
      at: start,
      count: bytes,
      left: 32 - bit - bits,
      right: 32 - bits,
      signed,
      bool: plan.form === "bool",
      names
    }, plan.cost)
  }

  private op(op: Partial<JsonOp> & Pick<JsonOp, "code">, room: number): void {
    const { from, length, to } = this.literals.add(this.pending)
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
      plan: op.plan ?? null,
      slow: op.slow ?? null
    })
  }
}
