import { lazily } from "../../core/Lazily.ts"
import type { Btf } from "../Btf.ts"
import type { ByteSink } from "./ByteSink.ts"
import { hiddenBytes } from "./HiddenBytes.ts"
import type { HiddenBytes } from "./HiddenCheck.ts"
import { run } from "./JsonCodec.ts"
import { type JsonPlan, valuePlan } from "./JsonPlan.ts"
import type { RenderedValue } from "./RenderedValue.ts"
import { bytesPlan, type RenderPlan, renderPlan, renderPlansWith, type Special } from "./RenderPlan.ts"
import { treeOf } from "./TreeCodec.ts"

/**
 * Limits of a decoded tree.
 *
 * @since 0.1.0
 * @category models
 */
export interface TreeOptions {
  /** Bytes of the value that are there; the codec's `size` if not given. */
  readonly length?: number
  /** The most elements that an array shows; as many as there are if not given. */
  readonly elements?: number
}

/**
 * Renders the values of one type. Nothing here throws: what is not there is rendered as truncated, what cannot be
 * rendered as unsupported. One value's output is bounded: at most 32 levels, about 64 MiB.
 *
 * @since 0.1.0
 * @category models
 */
export interface Codec {
  /** Bytes of a value; 0 of a type that has none. */
  readonly size: number
  /**
   * Append the plain JSON of the value at `at`, as UTF-8 (its form: `toJson`). Hot: allocates nothing unless the value
   * is truncated or has a float, a 128-bit integer or a 64-bit enum or bit-field. The result is what `hides` says of the
   * value, told by the writing.
   * @param length bytes of the value that are there, if fewer than `size`
   */
  readonly json: (view: DataView, at: number, out: ByteSink, length?: number) => boolean
  /** The value at `at` as a tree; `toJson` of it equals what `json` writes. */
  readonly tree: (view: DataView, at: number, options?: TreeOptions) => RenderedValue
  /** Whether other bytes would give the same form of the whole value at `at`. Null: never for this type. */
  readonly hides: HiddenBytes | null
  /**
   * Whether a value shows what it refers to: parts of that can be missing (`lossesInside`), and where a walk reads through
   * one window, `json` moves it.
   */
  readonly refers: boolean
  /** All that it was made of, of which another thread can make the same; undefined where it takes more. */
  readonly origin?: CodecOrigin | undefined
}

/**
 * A type, or bytes without one.
 *
 * @since 0.1.0
 * @category models
 */
export type CodecOrigin = { readonly btf: Btf; readonly typeId: number } | { readonly size: number }

const codecs = new WeakMap<Btf, Map<number, Codec>>()

/**
 * The codec of a type: made once for each type of a `Btf`, so cheap to ask for again.
 *
 * @since 0.1.0
 * @category constructors
 */
export const compile = (btf: Btf, typeId: number): Codec => {
  let known = codecs.get(btf)
  if (known === undefined) {
    known = new Map()
    codecs.set(btf, known)
  }
  const id = btf.peel(typeId)
  const done = known.get(id)
  if (done !== undefined) return done
  const codec = codecOf(renderPlan(btf, id), btf.sizeOf(id) ?? 0, { btf, typeId: id })
  known.set(id, codec)
  return codec
}

/** As `compile`, where `special` has a say in how the parts of a value are shown. Keeps what it made. */
export const compilerWith = (btf: Btf, special: Special): (typeId: number) => Codec => {
  const plans = renderPlansWith(btf, special)
  const known = new Map<number, Codec>()
  return (typeId) => {
    const id = btf.peel(typeId)
    const done = known.get(id)
    if (done !== undefined) return done
    const plan = plans(id)
    const codec = codecOf(plan, btf.sizeOf(id) ?? 0, holdsDerived(plan) ? undefined : { btf, typeId: id })
    known.set(id, codec)
    return codec
  }
}

/** Whether any part of a value is shown as something else than its bytes. */
const holdsDerived = (root: RenderPlan): boolean => {
  const seen = new Set<RenderPlan>([root])
  for (const plan of seen) { // grows meanwhile
    if (plan.kind === "derived") return true
    if (plan.kind === "array") seen.add(plan.element)
    if (plan.kind === "struct" || plan.kind === "union") { for (const member of plan.members) seen.add(member.plan) }
  }
  return false
}

/**
 * For `size` bytes without a type: one lower-case hex string, bytes in the order of memory.
 *
 * @since 0.1.0
 * @category reading
 */
export const bytesCodec = (size: number): Codec => codecOf(bytesPlan(size), size, { size })

const codecOf = (plan: RenderPlan, size: number, origin: CodecOrigin | undefined): Codec => {
  const tree: Codec["tree"] = (view, at, { elements = Infinity, length = size } = {}) =>
    treeOf(plan, view, at, Math.min(at + length, view.byteLength), elements)
  const whole = Math.max(plan.extent, size)
  let fast: JsonPlan | undefined
  const hidden = lazily(() => hiddenBytes(plan, size))
  return {
    size,
    tree,
    refers: origin === undefined,
    origin,
    get hides() {
      return hidden()?.check ?? null
    },
    json: (view, at, out, length = size) => {
      if (whole <= length && at + whole <= view.byteLength) {
        return run(fast ??= valuePlan(plan, hidden()), view, at, out)
      }
      out.tree(tree(view, at, { length }))
      return false
    }
  }
}
