import type { ByteSink } from "./ByteSink.ts"
import { type HiddenBytes, loopCheck } from "./HiddenCheck.ts"
import { type JsonOp, JsonOpCode, type JsonPlan, type JsonWriter } from "./JsonPlan.ts"
import { writers } from "./JsonWriters.ts"
import { makeFunction } from "./MakeFunction.ts"

/** Longer plans stay interpreted: V8 would not optimize their functions well. */
const MOST_OPS = 256
/** Words up to which those that may hide bits are looked at one by one. */
const MOST_WORDS = 64

/**
 * A plan as a JavaScript function, without the interpreter's loop: 1.7 times as fast. Null where that is impossible: the
 * plan is long, or this process forbids code from strings (`--disallow-code-generation-from-strings`).
 *
 * Of the guest's data only numbers get into the source: names and literals are words of `literals`.
 * @param repeat writes an array, or one value, by a plan of its own
 */
export const compileSource = (
  plan: JsonPlan,
  repeat: (op: JsonOp, view: DataView, at: number, sink: ByteSink) => void
): JsonWriter | null => {
  const { literals, ops } = plan
  if (ops.length > MOST_OPS) return null
  const hidden = hiddenSource(plan)
  // A part that follows pointers may move the window under the bytes; else they are looked at when the CPU has them in cache.
  const first = ops.some(callsOut)
  const lines: Array<string> = ["let out = sink.view, pos = sink.at", `let hides = ${first ? hidden.bits : 0}`]
  for (const [index, op] of ops.entries()) {
    // Another plan makes room for what it writes: room is made anew behind it.
    if (index === 0 || callsOut(ops[index - 1])) {
      const end = ops.findIndex((later, place) => place >= index && callsOut(later))
      const room = ops.slice(index, end < 0 ? undefined : end + 1).reduce((sum, each) => sum + each.room, 0)
      lines.push(`if (pos + ${room} > out.byteLength) { sink.at = pos; sink.ensure(${room}); out = sink.view }`)
    }
    for (let word = op.from; word < op.to;) {
      const at = `pos + ${(word - op.from) * 4}`
      const two = word + 1 < op.to ? eightBytes(literals[word], literals[word + 1]) : NaN
      lines.push(
        Number.isNaN(two) ? `out.setInt32(${at}, ${literals[word]}, true)` : `out.setFloat64(${at}, ${two}, true)`
      )
      word += Number.isNaN(two) ? 1 : 2
    }
    if (op.length > 0) lines.push(`pos += ${op.length}`)
    lines.push(statement(op, index))
    if (op.code === JsonOpCode.TEXT) {
      lines.push(`if (pos < 0) { pos = ~pos; ${hidden.texts.has(op) ? "hides = 1" : ""} }`)
    }
  }
  lines.push("sink.at = pos", `return (hides | ${first ? 0 : hidden.bits}) !== 0`)
  const called = { ...writers, repeat, check: hidden.rest }
  const names = Object.keys(called).join(", ")
  const body = `const { ${names} } = writers\nreturn (view, base, sink) => { ${lines.join("\n")} }`
  return makeFunction(["ops", "writers"], body)?.(ops, called) ?? null
}

interface HiddenSource {
  /** An expression that is 0 where neither the words nor the rest have bits that are hidden. */
  readonly bits: string
  /** The texts whose own writing tells whether they hide bytes. */
  readonly texts: ReadonlySet<JsonOp>
  /** All else. */
  readonly rest: HiddenBytes
}

/** The source of the look for hidden bytes: within the writing it costs half of what a function of its own does. */
const hiddenSource = ({ hidden, ops }: JsonPlan): HiddenSource => {
  if (hidden === null) return { bits: "0", texts: new Set(), rest: () => false }
  const { checks, words } = hidden
  const written = new Map(
    ops.flatMap((op) => op.code === JsonOpCode.TEXT ? [[`${op.at} ${op.count}`, op] as const] : [])
  )
  const texts = new Set<JsonOp>()
  const others = hidden.texts.filter(({ at, size }) => {
    const op = written.get(`${at} ${size}`)
    if (op !== undefined) texts.add(op)
    return op === undefined
  })
  const few = words.places.length <= MOST_WORDS
  const bits = few
    ? [
      ...words.places.map((place, index) => `view.getInt32(base + ${place}, true) & ${words.masks[index]}`),
      ...words.bytes.map(([place, mask]) => `view.getUint8(base + ${place}) & ${mask}`)
    ]
    : []
  const isAll = few && others.length + checks.length === 0
  return {
    bits: [...bits, ...(isAll ? [] : ["check(view, base)"])].map((bit) => `(${bit})`).join(" | ") || "0",
    texts,
    rest: loopCheck(few ? { places: [], masks: [], bytes: [] } : words, others, checks)
  }
}

/** The number whose eight bytes are these words: text is none but itself, but for NaN, whose bytes nobody keeps. */
const eightBytes = (low: number, high: number): number => new Float64Array(Int32Array.of(low, high).buffer)[0]

const callsOut = ({ code }: JsonOp): boolean => code === JsonOpCode.REPEAT || code === JsonOpCode.SLOW

/** One to four bytes, the first lowest, in as few reads as they take. */
const bitsSource = (at: string, count: number): string => {
  if (count === 1) return `view.getUint8(${at})`
  if (count === 4) return `view.getInt32(${at}, true)`
  const two = `view.getUint16(${at}, true)`
  return count === 2 ? two : `${two} | view.getUint8(${at} + 2) << 16`
}

/** The source of one step, at `index` of the plan. */
const statement = (op: JsonOp, index: number): string => {
  const at = `base + ${op.at}`
  const named = (value: string): string =>
    op.names === null
      ? `pos = ${op.signed ? "writeI32" : "writeU32"}(out, pos, ${value})`
      : `pos = writeNamed(out, pos, ${value}, ops[${index}].names)`
  const whole = (writer: string): string =>
    `pos = ${writer}(out, pos, view.getUint32(${at} + 4, true), view.getUint32(${at}, true))`
  switch (op.code) {
    case JsonOpCode.NOTHING:
      return ""
    case JsonOpCode.U8:
      return `pos = writeU32(out, pos, view.getUint8(${at}))`
    case JsonOpCode.I8:
      return `pos = writeI32(out, pos, view.getInt8(${at}))`
    case JsonOpCode.U16:
      return `pos = writeU32(out, pos, view.getUint16(${at}, true))`
    case JsonOpCode.I16:
      return `pos = writeI32(out, pos, view.getInt16(${at}, true))`
    case JsonOpCode.U32:
      return `pos = writeU32(out, pos, view.getUint32(${at}, true))`
    case JsonOpCode.I32:
      return `pos = writeI32(out, pos, view.getInt32(${at}, true))`
    case JsonOpCode.U64:
      return whole("writeU64")
    case JsonOpCode.I64:
      return whole("writeI64")
    case JsonOpCode.BOOL8:
      return `pos = writeBool(out, pos, view.getUint8(${at}) !== 0)`
    case JsonOpCode.ENUM32:
      return named(`view.${op.signed ? "getInt32" : "getUint32"}(${at}, true)`)
    case JsonOpCode.BITS: {
      const value = `((${bitsSource(at, op.count)}) << ${op.left} ${op.signed ? ">>" : ">>>"} ${op.right})`
      return op.bool ? `pos = writeBool(out, pos, ${value} !== 0)` : named(value)
    }
    case JsonOpCode.POINTER:
      return `out.setInt32(pos, 0x783022, true); pos += 3; ${whole("writeHex")}; out.setUint8(pos++, 34)`
    case JsonOpCode.TEXT:
      return `pos = writeText(out, pos, view, ${at}, ${op.count}, ${op.signed})`
    case JsonOpCode.BYTES:
      return `out.setUint8(pos++, 34); for (let byte = 0; byte < ${op.count}; byte++) `
        + `pos = writeHexByte(out, pos, view.getUint8(${at} + byte)); out.setUint8(pos++, 34)`
    case JsonOpCode.REPEAT:
    case JsonOpCode.SLOW:
      return `sink.at = pos; ${
        op.code === JsonOpCode.SLOW ? "writeSlow" : "repeat"
      }(ops[${index}], view, ${at}, sink); `
        + "out = sink.view; pos = sink.at"
    default:
      throw new Error(`no operation ${op.code}`)
  }
}
