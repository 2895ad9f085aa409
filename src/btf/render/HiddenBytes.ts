import type { FieldPlan, RenderPlan, StructPlan } from "./RenderPlan.ts"

/** Does the JSON of the value at `at` leave bytes of it undetermined? */
export type HiddenBytes = (view: DataView, at: number) => boolean

/** Bits from `from` to before `to`, counted from the value's start. */
interface Span {
  readonly from: number
  readonly to: number
}

/**
 * Whether the typed form of a value may stand for several values' bytes; null: it never does. Found out once for a type,
 * so that entries of most types cost nothing. Hidden are: bits that no member has, unless they are 0 (padding, unions'
 * shorter members, elements beyond the limits); bytes behind the NUL of a string, unless they are 0; a bool beyond 1; the
 * payload of a NaN, and -0. What a `derived` plan shows stands for its bytes.
 * @param size bytes of the value
 */
export const hiddenBytes = (plan: RenderPlan, size: number): HiddenBytes | null => {
  const spans: Array<Span> = []
  if (!addShown(plan, 0, spans)) return () => true
  return anyOf([hiddenInside(plan), gapCheck(uncovered(spans, size * 8))])
}

/** Spans that are looked at of one type; one with more has its bytes shown always. */
const SPAN_LIMIT = 2 ** 16

const known = new WeakMap<RenderPlan, HiddenBytes | null>()

/** Of the bits that the plan shows, is there anything that its form does not tell apart? */
const hiddenInside = (plan: RenderPlan): HiddenBytes | null => {
  const done = known.get(plan)
  if (done !== undefined) return done
  const found = findHidden(plan)
  known.set(plan, found)
  return found
}

const findHidden = (plan: RenderPlan): HiddenBytes | null => {
  switch (plan.kind) {
    case "scalar":
      if (plan.form === "bool" && plan.bits > 1) return gapCheck([{ from: plan.bit + 1, to: plan.bit + plan.bits }])
      // Names that two values share; no compiler writes such an enum.
      return plan.names?.hasDuplicates === true ? () => true : null
    case "float":
      return plan.extent === 4
        ? (view, at) => isManyBytes(view.getFloat32(at, true))
        : (view, at) => isManyBytes(view.getFloat64(at, true))
    case "text":
      return bytesBehindNul(plan.extent)
    case "array":
      return everyElement(hiddenBytes(plan.element, plan.stride), plan.stride, plan.count)
    case "struct":
    case "union":
      return hiddenInMembers(plan)
    case "pointer":
    case "bytes":
    case "unsupported":
    case "derived":
      return null
  }
}

/** Members may lie over one another: what one hides another may show. */
const hiddenInMembers = ({ extent, members }: StructPlan): HiddenBytes | null => {
  const exact: Array<Span> = []
  const doubtful: Array<readonly [field: FieldPlan, inner: HiddenBytes]> = []
  for (const field of members) {
    const inner = hiddenInside(field.plan)
    if (inner !== null) doubtful.push([field, inner])
    else if (!addShown(field.plan, field.at * 8, exact)) return () => true
  }
  const gaps = doubtful.length === 0 ? [] : uncovered(exact, extent * 8)
  const checks = doubtful.flatMap(([{ at: place, plan }, inner]): ReadonlyArray<HiddenBytes> =>
    hasGap(gaps, place * 8, (place + plan.extent) * 8) ? [(view, at) => inner(view, at + place)] : []
  )
  return anyOf(checks)
}

/** Is there a gap between two bits? Gaps are in order and apart. */
const hasGap = (gaps: ReadonlyArray<Span>, from: number, to: number): boolean => {
  let low = 0
  for (let high = gaps.length; low < high;) {
    const middle = (low + high) >>> 1
    if (gaps[middle].to <= from) low = middle + 1
    else high = middle
  }
  return low < gaps.length && gaps[low].from < to
}

/** Several values' bytes are written as NaN; -0 is written as 0. */
const isManyBytes = (value: number): boolean => Number.isNaN(value) || Object.is(value, -0)

const bytesBehindNul = (size: number): HiddenBytes => (view, at) => {
  let byte = 0
  for (; byte < size; byte++) {
    const character = view.getUint8(at + byte)
    if (character === 0) break
    if (character < 0x20 || character > 0x7e) return false // shown as numbers
  }
  for (; byte < size; byte++) if (view.getUint8(at + byte) !== 0) return true
  return false
}

const everyElement = (inner: HiddenBytes | null, stride: number, count: number): HiddenBytes | null =>
  inner === null ? null : (view, at) => {
    for (let index = 0; index < count; index++) if (inner(view, at + index * stride)) return true
    return false
  }

/** Add the bits that are shown, in whatever form, of a plan that starts at bit `start`; false when there are too many. */
const addShown = (plan: RenderPlan, start: number, spans: Array<Span>): boolean => {
  const add = (from: number, bits: number): boolean =>
    spans.push({ from: start + from, to: start + from + bits }) < SPAN_LIMIT
  switch (plan.kind) {
    case "scalar":
      return add(plan.bit, plan.bits)
    case "struct":
    case "union":
      return plan.members.every((field) => addShown(field.plan, start + field.at * 8, spans))
    case "array":
      // Gaps inside an element are looked for in each of them.
      return plan.count === 0 || add(0, plan.count * plan.stride * 8)
    case "unsupported":
      return true
    default:
      return add(0, plan.extent * 8)
  }
}

/** Those of the first `bits` bits that no span covers. */
const uncovered = (spans: ReadonlyArray<Span>, bits: number): ReadonlyArray<Span> => {
  const gaps: Array<Span> = []
  let end = 0
  for (const { from, to } of spans.toSorted((a, b) => a.from - b.from)) {
    if (from > end) gaps.push({ from: end, to: Math.min(from, bits) })
    end = Math.max(end, to)
  }
  if (end < bits) gaps.push({ from: end, to: bits })
  return gaps.filter(({ from, to }) => from < to)
}

/** Is any bit of the gaps set? */
const gapCheck = (gaps: ReadonlyArray<Span>): HiddenBytes | null =>
  gaps.length === 0 ? null : (view, at) => {
    for (const { from, to } of gaps) {
      const last = (to - 1) >>> 3
      for (let byte = from >>> 3; byte <= last; byte++) {
        let value = view.getUint8(at + byte)
        if (byte === from >>> 3) value &= 0xff << (from & 7)
        if (byte === last) value &= 0xff >>> (7 - ((to - 1) & 7))
        if (value !== 0) return true
      }
    }
    return false
  }

const anyOf = (checks: ReadonlyArray<HiddenBytes | null>): HiddenBytes | null => {
  const all = checks.filter((check) => check !== null)
  if (all.length < 2) return all[0] ?? null
  return (view, at) => {
    for (const check of all) if (check(view, at)) return true
    return false
  }
}
