import type { EnumValue, RenderedValue } from "./RenderedValue.ts"
import type { Field, List, Scalar, Shape } from "./Shape.ts"

/**
 * The tree of the value at `at` of `view`, of which the bytes before `end` (not beyond the view's) may be read. What
 * lies behind is `truncated`: member by member in a struct, with the first element that does not fit in an array.
 * Arrays show at most `most` elements.
 */
export const treeOf = (shape: Shape, view: DataView, at: number, end: number, most: number): RenderedValue => {
  if (at + shape.extent > end && !(isPartial(shape) && at < end)) {
    return { _tag: "truncated", needed: shape.extent, had: Math.max(0, end - at) }
  }
  switch (shape.kind) {
    case "scalar":
      return scalarValue(shape, readInteger(view, at, shape))
    case "pointer":
      return { _tag: "pointer", value: view.getBigUint64(at, true) }
    case "float":
      return { _tag: "float", value: shape.extent === 4 ? view.getFloat32(at, true) : view.getFloat64(at, true) }
    case "bytes":
      return { _tag: "bytes", hex: bytesOf(view, at, shape.extent).toString("hex") }
    case "text": {
      const length = textLength(view, at, shape.extent)
      if (length >= 0) return { _tag: "string", value: bytesOf(view, at, length).toString("latin1") }
      const count = Math.min(shape.extent, most)
      const elements = Array.from({ length: count }, (_, index): RenderedValue => ({
        _tag: "char",
        value: shape.signed ? view.getInt8(at + index) : view.getUint8(at + index)
      }))
      return { _tag: "array", elements, omitted: shape.extent - count }
    }
    case "struct":
    case "union": {
      const members = shape.members.map((field: Field) => ({
        name: field.name,
        value: treeOf(field.shape, view, at + field.at, end, most)
      }))
      return { _tag: shape.kind, members }
    }
    case "array":
      return listValue(shape, view, at, end, most)
    case "unsupported":
      return { _tag: "unsupported", reason: shape.reason }
    case "derived":
      return shape.render(view, at, most)
  }
}

/** Shapes that can be shown in part. */
const isPartial = (shape: Shape): boolean => shape.kind === "struct" || shape.kind === "union" || shape.kind === "array"

/** Bytes before the NUL of a printable ASCII string, -1 if the `size` bytes hold none. */
export const textLength = (view: DataView, at: number, size: number): number => {
  for (let length = 0; length < size; length++) {
    const byte = view.getUint8(at + length)
    if (byte === 0) return length
    if (byte < 0x20 || byte > 0x7e) return -1
  }
  return -1
}

const bytesOf = (view: DataView, at: number, length: number): Buffer =>
  Buffer.from(view.buffer, view.byteOffset + at, length)

const listValue = (shape: List, view: DataView, at: number, end: number, most: number): RenderedValue => {
  const { count, element, stride } = shape
  const shown = Math.min(count, most)
  const elements: Array<RenderedValue> = []
  for (let index = 0; index < shown; index++) {
    const start = at + index * stride
    if (start + element.extent > end) {
      elements.push({ _tag: "truncated", needed: shape.extent - index * stride, had: Math.max(0, end - start) })
      return { _tag: "array", elements, omitted: 0 }
    }
    elements.push(treeOf(element, view, start, end, most))
  }
  return { _tag: "array", elements, omitted: count - shown + shape.omitted }
}

const scalarValue = (shape: Scalar, value: number | bigint): RenderedValue => {
  switch (shape.form) {
    case "int":
      return { _tag: "int", value }
    case "char":
      return { _tag: "char", value: Number(value) }
    case "bool":
      return { _tag: "bool", value: value !== 0 }
    case "enum":
      return enumValue(value, shape.names)
  }
}

const enumValue = (value: number | bigint, names: ReadonlyMap<number | bigint, string>): EnumValue => {
  const name = names.get(value) ?? null
  const flags: Array<string> = []
  if (name === null && value > 0) {
    let rest = BigInt(value)
    for (const [bit, flag] of names) {
      const mask = BigInt(bit)
      if (mask > 0n && (mask & (mask - 1n)) === 0n && (rest & mask) !== 0n) {
        flags.push(flag)
        rest ^= mask
      }
    }
    if (rest !== 0n) flags.length = 0
  }
  return { _tag: "enum", value, name, flags }
}

/** An integer of any width, a bit-field or not: a `bigint` only beyond ±(2^53 - 1). */
export const readInteger = (view: DataView, at: number, shape: Scalar): number | bigint => {
  const { bit, bits, signed } = shape
  if (bit === 0 && bits === 8) return signed ? view.getInt8(at) : view.getUint8(at)
  if (bit === 0 && bits === 32) return signed ? view.getInt32(at, true) : view.getUint32(at, true)
  let value = 0n
  for (let byte = shape.extent - 1; byte >= bit >>> 3; byte--) value = (value << 8n) | BigInt(view.getUint8(at + byte))
  value >>= BigInt(bit & 7)
  value = signed ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value)
  const near = Number(value)
  return Number.isSafeInteger(near) ? near : value
}
