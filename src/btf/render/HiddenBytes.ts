import {
  type Hidden,
  type HiddenBytes,
  type HiddenLook,
  hiddenLook,
  sizeOf,
  type Span,
  type TextSpan
} from "./HiddenCheck.ts"
import type { FieldPlan, RenderPlan, StructPlan } from "./RenderPlan.ts"

/**
 * Where the typed form of a value may stand for several values' bytes; null: it never does. Found out once for a type,
 * so that entries of most types cost nothing. Hidden are: bits that no member has, unless they are 0 (padding, unions'
 * shorter members, elements beyond the limits); bytes behind the NUL of a string, unless they are 0; a bool beyond 1; the
 * payload of a NaN, and -0. What a `derived` plan shows stands for its bytes.
 * @param size bytes of the value
 */
export const hiddenBytes = (plan: RenderPlan, size: number): HiddenLook | null => hiddenLook(hiddenInValue(plan, size))

/** Spans that are looked at of one type; one with more has its bytes shown always. */
const SPAN_LIMIT = 2 ** 16
/** Gaps and strings of an array's elements, all together, that are looked at as the array's own. */
const ARRAY_LIMIT = 64

const NOTHING: Hidden = { gaps: [], texts: [], checks: [] }
const ALWAYS: Hidden = { ...NOTHING, checks: [() => true] }

const known = new WeakMap<RenderPlan, Hidden>()

/** Of all bits of a value, in `size` bytes, with those that its plan does not show. */
const hiddenInValue = (plan: RenderPlan, size: number): Hidden => {
  const spans: Array<Span> = []
  if (!addShown(plan, 0, spans)) return ALWAYS
  const inside = hiddenInside(plan)
  return { ...inside, gaps: [...inside.gaps, ...uncovered(spans, size * 8)] }
}

/** Of the bits that the plan shows, those that its form does not tell apart. */
const hiddenInside = (plan: RenderPlan): Hidden => {
  const done = known.get(plan)
  if (done !== undefined) return done
  const found = findHidden(plan)
  known.set(plan, found)
  return found
}

const findHidden = (plan: RenderPlan): Hidden => {
  switch (plan.kind) {
    case "scalar":
      if (plan.form === "bool" && plan.bits > 1) {
        return { ...NOTHING, gaps: [{ from: plan.bit + 1, to: plan.bit + plan.bits }] }
      }
      // Names that two values share; no compiler writes such an enum.
      return plan.names?.hasDuplicates === true ? ALWAYS : NOTHING
    case "float":
      return {
        ...NOTHING,
        checks: [
          plan.extent === 4
            ? (view, at) => isManyBytes(view.getFloat32(at, true))
            : (view, at) => isManyBytes(view.getFloat64(at, true))
        ]
      }
    case "text":
      return { ...NOTHING, texts: [{ at: 0, size: plan.extent }] }
    case "array":
      return hiddenInElements(hiddenInValue(plan.element, plan.stride), plan.stride, plan.count)
    case "struct":
    case "union":
      return hiddenInMembers(plan)
    case "pointer":
    case "bytes":
    case "unsupported":
    case "derived":
      return NOTHING
  }
}

const hiddenInElements = (element: Hidden, stride: number, count: number): Hidden => {
  const look = hiddenLook(element)
  if (look === null || count === 0) return NOTHING
  if (element.checks.length === 0 && sizeOf(element) * count <= ARRAY_LIMIT) {
    const all = Array.from({ length: count }, (_, index) => moved(element, index * stride))
    return { gaps: all.flatMap(({ gaps }) => gaps), texts: all.flatMap(({ texts }) => texts), checks: [] }
  }
  return {
    ...NOTHING,
    checks: [(view, at) => {
      for (let index = 0; index < count; index++) if (look.check(view, at + index * stride)) return true
      return false
    }]
  }
}

/** The same, `bytes` further into a value. */
const moved = ({ checks, gaps, texts }: Hidden, bytes: number): Hidden => ({
  gaps: gaps.map(({ from, to }) => ({ from: from + bytes * 8, to: to + bytes * 8 })),
  texts: texts.map(({ at, size }) => ({ at: at + bytes, size })),
  checks: checks.map((check) => (view, at) => check(view, at + bytes))
})

/** Members may lie over one another: what one hides another may show. */
const hiddenInMembers = ({ extent, members }: StructPlan): Hidden => {
  const exact: Array<Span> = []
  const doubtful: Array<readonly [field: FieldPlan, inner: Hidden]> = []
  for (const field of members) {
    const inner = hiddenInside(field.plan)
    if (sizeOf(inner) > 0) doubtful.push([field, inner])
    else if (!addShown(field.plan, field.at * 8, exact)) return ALWAYS
  }
  if (doubtful.length === 0) return NOTHING
  const notShown = uncovered(exact, extent * 8)
  const gaps: Array<Span> = []
  const texts: Array<TextSpan> = []
  const checks: Array<HiddenBytes> = []
  for (const [{ at: place, plan }, inner] of doubtful) {
    if (!hasGap(notShown, place * 8, (place + plan.extent) * 8)) continue
    if (gaps.length + texts.length + checks.length + sizeOf(inner) > SPAN_LIMIT) return ALWAYS
    const here = moved(inner, place)
    for (const gap of here.gaps) gaps.push(gap)
    for (const text of here.texts) texts.push(text)
    for (const check of here.checks) checks.push(check)
  }
  return { gaps, texts, checks }
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
