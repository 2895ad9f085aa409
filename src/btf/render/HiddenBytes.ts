import type { FieldPlan, RenderPlan, StructPlan } from "./RenderPlan.ts"

/**
 * Does the JSON of the value at `at` leave bytes of it undetermined?
 *
 * @since 0.1.0
 * @category models
 */
export type HiddenBytes = (view: DataView, at: number) => boolean

/** Bits from `from` to before `to`, counted from the value's start. */
interface Span {
  readonly from: number
  readonly to: number
}

/** A string: `at` and `size` in bytes, `at` counted from the value's start. */
interface TextSpan {
  readonly at: number
  readonly size: number
}

/**
 * Everything that can hide bytes of a value. As data, not as functions, where that is possible: the check runs for each
 * entry, and calls of functions that are made at run time are never inlined.
 */
interface Hidden {
  /** Bits that are hidden when they are set. In any order; they may overlap. */
  readonly gaps: ReadonlyArray<Span>
  /** Strings that may have bytes behind their NUL. */
  readonly texts: ReadonlyArray<TextSpan>
  readonly checks: ReadonlyArray<HiddenBytes>
}

/**
 * Whether the typed form of a value may stand for several values' bytes; null: it never does. Found out once for a type,
 * so that entries of most types cost nothing. Hidden are: bits that no member has, unless they are 0 (padding, unions'
 * shorter members, elements beyond the limits); bytes behind the NUL of a string, unless they are 0; a bool beyond 1; the
 * payload of a NaN, and -0. What a `derived` plan shows stands for its bytes.
 * @param size bytes of the value
 */
export const hiddenBytes = (plan: RenderPlan, size: number): HiddenBytes | null => oneCheck(hiddenInValue(plan, size))

/** Spans that are looked at of one type; one with more has its bytes shown always. */
const SPAN_LIMIT = 2 ** 16
/** Gaps and strings of an array's elements, all together, that are looked at as the array's own. */
const ARRAY_LIMIT = 64

const NOTHING: Hidden = { gaps: [], texts: [], checks: [] }
const ALWAYS: Hidden = { ...NOTHING, checks: [() => true] }

const sizeOf = ({ checks, gaps, texts }: Hidden): number => gaps.length + texts.length + checks.length

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
  const check = oneCheck(element)
  if (check === null || count === 0) return NOTHING
  if (element.checks.length === 0 && sizeOf(element) * count <= ARRAY_LIMIT) {
    const all = Array.from({ length: count }, (_, index) => moved(element, index * stride))
    return { gaps: all.flatMap(({ gaps }) => gaps), texts: all.flatMap(({ texts }) => texts), checks: [] }
  }
  return {
    ...NOTHING,
    checks: [(view, at) => {
      for (let index = 0; index < count; index++) if (check(view, at + index * stride)) return true
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

/**
 * Looks at words. The lowest bit that is left of `zero` marks the first byte that is 0, so a word whose NUL has nothing
 * behind it has no bit above that.
 */
const hasBytesBehindNul = (view: DataView, at: number, size: number): boolean => {
  const end = at + (size & ~3)
  let place = at
  let behind = 0
  while (place < end) {
    const word = view.getInt32(place, true)
    place += 4
    const zero = (word - 0x01010101) & ~word & 0x80808080
    if (zero === 0) continue
    behind = word & -(zero & -zero)
    while (place < end) {
      behind |= view.getInt32(place, true)
      place += 4
    }
  }
  return (behind !== 0 || end < at + size) && hasBytesBehind(view, at, size)
}

/** The same, by bytes; text that is not printable is shown as numbers, all of them. */
const hasBytesBehind = (view: DataView, at: number, size: number): boolean => {
  let end = size
  while (end > 0 && view.getUint8(at + end - 1) === 0) end--
  let byte = 0
  while (byte < end && view.getUint8(at + byte) !== 0) byte++
  return byte < end && isPrintable(view, at, byte)
}

/** Is it shown as text? */
const isPrintable = (view: DataView, at: number, length: number): boolean => {
  for (let byte = at; byte < at + length; byte++) {
    const character = view.getUint8(byte)
    if (character < 0x20 || character > 0x7e) return false
  }
  return true
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

/** Bytes of gaps up to which they are looked at as a list of words. */
const WORDS_LIMIT = 256

/** Words of a value: the offset of each, and the mask of its bits that are looked at. */
interface Words {
  readonly places: ReadonlyArray<number>
  readonly masks: ReadonlyArray<number>
  /** The same of single bytes, in front of the words. */
  readonly bytes: ReadonlyArray<readonly [place: number, mask: number]>
}

/** The last word ends where the last gap does, so that none reaches beyond the value. */
const wordsOf = (gaps: ReadonlyArray<Span>): Words => {
  const maskAt = new Map<number, number>()
  for (const { from, to } of gaps) {
    for (let byte = from >>> 3; byte <= (to - 1) >>> 3; byte++) {
      maskAt.set(byte, (maskAt.get(byte) ?? 0) | maskOf(byte, from, to))
    }
  }
  const places: Array<number> = []
  const masks: Array<number> = []
  let rest = [...maskAt].toSorted(([a], [b]) => b - a)
  while (rest.length > 0 && rest[0][0] >= 3) {
    const place = rest[0][0] - 3
    const inside = rest.filter(([byte]) => byte >= place)
    places.push(place)
    masks.push(inside.reduce((word, [byte, mask]) => word | mask << (byte - place) * 8, 0))
    rest = rest.slice(inside.length)
  }
  return { places, masks, bytes: rest }
}

/** Those bits of a byte that lie from `from` to before `to`. */
const maskOf = (byte: number, from: number, to: number): number => {
  const low = byte === from >>> 3 ? 0xff << (from & 7) : 0xff
  const high = byte === (to - 1) >>> 3 ? 0xff >>> (7 - ((to - 1) & 7)) : 0xff
  return low & high & 0xff
}

const longGapsCheck = (gaps: ReadonlyArray<Span>): HiddenBytes => (view, at) => {
  for (const { from, to } of gaps) {
    const last = (to - 1) >>> 3
    for (let byte = from >>> 3; byte <= last; byte++) {
      if ((view.getUint8(at + byte) & maskOf(byte, from, to)) !== 0) return true
    }
  }
  return false
}

/** One function for all of it; null where nothing can be hidden. */
const oneCheck = (hidden: Hidden): HiddenBytes | null => {
  if (sizeOf(hidden) === 0) return null
  const { gaps, texts } = hidden
  const few = gaps.reduce((sum, { from, to }) => sum + ((to + 7) >>> 3) - (from >>> 3), 0) <= WORDS_LIMIT
  const { bytes, masks, places } = wordsOf(few ? gaps : [])
  const checks = few ? hidden.checks : [longGapsCheck(gaps), ...hidden.checks]
  return (view, at) => {
    for (let index = 0; index < places.length; index++) {
      if ((view.getInt32(at + places[index], true) & masks[index]) !== 0) return true
    }
    for (let index = 0; index < bytes.length; index++) {
      if ((view.getUint8(at + bytes[index][0]) & bytes[index][1]) !== 0) return true
    }
    for (let index = 0; index < texts.length; index++) {
      if (hasBytesBehindNul(view, at + texts[index].at, texts[index].size)) return true
    }
    for (let index = 0; index < checks.length; index++) if (checks[index](view, at)) return true
    return false
  }
}
