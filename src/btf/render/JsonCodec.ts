import type { ByteSink } from "./ByteSink.ts"
import { writeHex, writeHexByte, writeI32, writeI64, writeU32, writeU64 } from "./Digits.ts"
import { type JsonOp, JsonOpCode, type JsonPlan } from "./JsonPlan.ts"
import { compileSource } from "./JsonSource.ts"
import { COMMA, QUOTE, writeBool, writeNamed, writeSlow, writeText } from "./JsonWriters.ts"

/** Values after which a plan gets a function of its own: making one costs as much as writing some hundred values. */
const HOT = 512

/**
 * Write the JSON of the value at `base`, all of whose bytes are in `view`; true where it hides some of them. Hot: nothing
 * is allocated. A value that follows pointers may move the window under the bytes, so they are looked at first.
 */
export const run = (plan: JsonPlan, view: DataView, base: number, sink: ByteSink): boolean => {
  if (plan.writer !== null) return plan.writer(view, base, sink)
  if (++plan.runs === HOT) plan.writer = compileSource(plan, repeat)
  const hides = plan.hidden !== null && plan.hidden.check(view, base)
  interpret(plan, view, base, sink)
  return hides
}

/** The numbers that matter are in locals. */
const interpret = (plan: JsonPlan, view: DataView, base: number, sink: ByteSink): void => {
  const { literals, ops } = plan
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
      case JsonOpCode.NOTHING:
        break
      case JsonOpCode.U8:
        pos = writeU32(out, pos, view.getUint8(at))
        break
      case JsonOpCode.I8:
        pos = writeI32(out, pos, view.getInt8(at))
        break
      case JsonOpCode.U16:
        pos = writeU32(out, pos, view.getUint16(at, true))
        break
      case JsonOpCode.I16:
        pos = writeI32(out, pos, view.getInt16(at, true))
        break
      case JsonOpCode.U32:
        pos = writeU32(out, pos, view.getUint32(at, true))
        break
      case JsonOpCode.I32:
        pos = writeI32(out, pos, view.getInt32(at, true))
        break
      case JsonOpCode.U64:
        pos = writeU64(out, pos, view.getUint32(at + 4, true), view.getUint32(at, true))
        break
      case JsonOpCode.I64:
        pos = writeI64(out, pos, view.getUint32(at + 4, true), view.getUint32(at, true))
        break
      case JsonOpCode.BOOL8:
        pos = writeBool(out, pos, view.getUint8(at) !== 0)
        break
      case JsonOpCode.ENUM32: {
        const value = op.signed ? view.getInt32(at, true) : view.getUint32(at, true)
        if (op.names !== null) pos = writeNamed(out, pos, value, op.names)
        else pos = op.signed ? writeI32(out, pos, value) : writeU32(out, pos, value)
        break
      }
      case JsonOpCode.BITS: {
        let raw = 0
        for (let byte = op.count - 1; byte >= 0; byte--) raw = (raw << 8) | view.getUint8(at + byte)
        raw <<= op.left
        const value = op.signed ? raw >> op.right : raw >>> op.right
        if (op.bool) pos = writeBool(out, pos, value !== 0)
        else if (op.names !== null) pos = writeNamed(out, pos, value, op.names)
        else pos = op.signed ? writeI32(out, pos, value) : writeU32(out, pos, value)
        break
      }
      case JsonOpCode.POINTER:
        out.setInt32(pos, 0x78_3022, true) // "0x behind a quote
        pos = writeHex(out, pos + 3, view.getUint32(at + 4, true), view.getUint32(at, true))
        out.setUint8(pos++, QUOTE)
        break
      case JsonOpCode.TEXT:
        pos = writeText(out, pos, view, at, op.count, op.signed)
        if (pos < 0) pos = ~pos
        break
      case JsonOpCode.BYTES:
        out.setUint8(pos++, QUOTE)
        for (let byte = 0; byte < op.count; byte++) pos = writeHexByte(out, pos, view.getUint8(at + byte))
        out.setUint8(pos++, QUOTE)
        break
      case JsonOpCode.REPEAT:
        sink.at = pos
        repeat(op, view, at, sink)
        out = sink.view
        pos = sink.at
        break
      case JsonOpCode.SLOW:
        sink.at = pos
        writeSlow(op, view, at, sink)
        out = sink.view
        pos = sink.at
        break
    }
  }
  sink.at = pos
}

/** Write one value, or the elements of an array, by a plan of their own. */
const repeat = (op: JsonOp, view: DataView, at: number, sink: ByteSink): void => {
  if (op.plan === null) return
  for (let turn = 0; turn < op.count; turn++) {
    if (turn > 0) sink.byte(COMMA)
    run(op.plan, view, at + turn * op.stride, sink)
  }
}
