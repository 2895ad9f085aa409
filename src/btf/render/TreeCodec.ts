import type { EnumValue, RenderedValue } from "./RenderedValue.ts"
import type { ArrayPlan, FieldPlan, RenderPlan, ScalarPlan } from "./RenderPlan.ts"
import type { ValueNames } from "./ValueNames.ts"

/**
 * The tree of the value at `at` of `view`, of which the bytes before `end` (not beyond the view's) may be read. What
 * lies behind is `truncated`: member by member in a struct, with the first element that does not fit in an array.
 * Arrays show at most `most` elements.
 */
export const treeOf = (plan: RenderPlan, view: DataView, at: number, end: number, most: number): RenderedValue => {
  if (at + plan.extent > end && !(isPartial(plan) && at < end)) {
    return { _tag: "truncated", needed: plan.extent, had: Math.max(0, end - at) }
  }
  switch (plan.kind) {
    case "scalar":
      return scalarValue(plan, readInteger(view, at, plan))
    case "pointer":
      return { _tag: "pointer", value: view.getBigUint64(at, true) }
    case "float":
      return { _tag: "float", value: plan.extent === 4 ? view.getFloat32(at, true) : view.getFloat64(at, true) }
    case "bytes":
      return { _tag: "bytes", hex: bytesOf(view, at, plan.extent).toString("hex") }
    case "text": {
      const length = textLength(view, at, plan.extent)
      if (length >= 0) return { _tag: "string", value: bytesOf(view, at, length).toString("latin1") }
      const count = Math.min(plan.extent, most)
      const elements = Array.from({ length: count }, (_, index): RenderedValue => ({
        _tag: "char",
        value: plan.signed ? view.getInt8(at + index) : view.getUint8(at + index)
      }))
      return { _tag: "array", elements, omitted: plan.extent - count }
    }
    case "struct":
    case "union": {
      const members = plan.members.map((field: FieldPlan) => ({
        name: field.name,
        value: treeOf(field.plan, view, at + field.at, end, most)
      }))
      return { _tag: plan.kind, members }
    }
    case "array":
      return listValue(plan, view, at, end, most)
    case "unsupported":
      return { _tag: "unsupported", reason: plan.reason }
    case "derived":
      return plan.render(view, at, most)
  }
}

/** Whether a value of this plan can be shown in part. */
const isPartial = (plan: RenderPlan): boolean =>
  plan.kind === "struct" || plan.kind === "union" || plan.kind === "array"

/** Bytes before the NUL of a printable ASCII string, -1 if the `size` bytes hold none. */
const textLength = (view: DataView, at: number, size: number): number => {
  for (let length = 0; length < size; length++) {
    const byte = view.getUint8(at + length)
    if (byte === 0) return length
    if (byte < 0x20 || byte > 0x7e) return -1
  }
  return -1
}

const bytesOf = (view: DataView, at: number, length: number): Buffer =>
  Buffer.from(view.buffer, view.byteOffset + at, length)

const listValue = (plan: ArrayPlan, view: DataView, at: number, end: number, most: number): RenderedValue => {
  const { count, element, stride } = plan
  const shown = Math.min(count, most)
  const elements: Array<RenderedValue> = []
  for (let index = 0; index < shown; index++) {
    const start = at + index * stride
    if (start + element.extent > end) {
      elements.push({ _tag: "truncated", needed: plan.extent - index * stride, had: Math.max(0, end - start) })
      return { _tag: "array", elements, omitted: 0 }
    }
    elements.push(treeOf(element, view, start, end, most))
  }
  return { _tag: "array", elements, omitted: count - shown + plan.omitted }
}

const scalarValue = (plan: ScalarPlan, value: number | bigint): RenderedValue => {
  switch (plan.form) {
    case "int":
      return { _tag: "int", value }
    case "char":
      return { _tag: "char", value: Number(value) }
    case "bool":
      return { _tag: "bool", value: value !== 0 }
    case "enum":
      return enumValue(value, plan.names)
  }
}

const enumValue = (value: number | bigint, names: ValueNames): EnumValue => {
  const name = names.byValue.get(value) ?? null
  return { _tag: "enum", value, name, flags: name === null ? names.flagsOf(value) : [] }
}

/** An integer of any width, a bit-field or not: a `bigint` only beyond ±(2^53 - 1). */
const readInteger = (view: DataView, at: number, plan: ScalarPlan): number | bigint => {
  const { bit, bits, signed } = plan
  if (bit === 0 && bits === 8) return signed ? view.getInt8(at) : view.getUint8(at)
  if (bit === 0 && bits === 32) return signed ? view.getInt32(at, true) : view.getUint32(at, true)
  let value = 0n
  for (let byte = plan.extent - 1; byte >= bit >>> 3; byte--) value = (value << 8n) | BigInt(view.getUint8(at + byte))
  value >>= BigInt(bit & 7)
  value = signed ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value)
  const near = Number(value)
  return Number.isSafeInteger(near) ? near : value
}
