import { type Literal, literal } from "../../btf/render/ByteSink.ts"
import type { Codec } from "../../btf/render/Codec.ts"
import { lossesInside, type RenderedValue, toJson } from "../../btf/render/RenderedValue.ts"
import { escapedJson } from "../../core/EscapeText.ts"
import type { Reason } from "../../core/Reason.ts"

/**
 * A codec for what no C type describes: a pointer shown as what it points at, a record of any length. It allocates, so
 * it is not for maps of plain values. `render` gets the walk's bytes and how many of them are the key or value.
 */
export const derivedCodec = (render: (view: DataView, at: number, length: number) => RenderedValue): Codec => ({
  size: 0,
  hides: null,
  refers: true,
  json: (view, at, out, length = 0) => {
    out.tree(render(view, at, length))
    return false
  },
  tree: (view, at, { length = 0 } = {}) => render(view, at, length)
})

/** Descriptions that are kept, a power of two; longer ones than this many bytes are not. */
const KEPT = 256
const LONGEST = 4096

/**
 * As `derivedCodec`, for values that recur: a map's slots that all hold the same few objects. `words` are the places of the
 * 32-bit words, counted from the value, that the description is made from: where they are the same, so is the description.
 * Only for memory that stands still, where what they lead to is the same too.
 */
export const recurringCodec = (
  words: ReadonlyArray<number>,
  render: (view: DataView, at: number, length: number) => RenderedValue
): Codec => {
  const plain = derivedCodec(render)
  const count = words.length
  const places = Int32Array.from(words)
  const now = new Uint32Array(count)
  const seen = new Uint32Array(KEPT * count)
  const kept = Array.from({ length: KEPT }, (): Literal | undefined => undefined)
  const isSeen = (slot: number): boolean => {
    for (let index = 0; index < count; index++) if (seen[slot * count + index] !== now[index]) return false
    return true
  }
  return {
    ...plain,
    json: (view, at, out, length = 0) => {
      let hash = 0
      for (let index = 0; index < count; index++) {
        const word = view.getUint32(at + places[index], true)
        now[index] = word
        hash = Math.imul(hash ^ word, 0x9e37_79b1) ^ hash >>> 15
      }
      const slot = hash >>> 24
      const known = kept[slot]
      if (known !== undefined && isSeen(slot)) {
        out.literal(known)
        return false
      }
      seen.set(now, slot * count)
      const value = render(view, at, length)
      if (lossesInside(value).length > 0) { // each is to be counted
        kept[slot] = undefined
        out.tree(value)
        return false
      }
      const text = literal(escapedJson(toJson(value)))
      kept[slot] = text.length > LONGEST ? undefined : text
      out.literal(text)
      return false
    }
  }
}

/** Members in order; undefined ones are left out. */
export const objectOf = (members: { readonly [name: string]: RenderedValue | undefined }): RenderedValue => ({
  _tag: "struct",
  members: Object.entries(members).flatMap(([name, value]) => value === undefined ? [] : [{ name, value }])
})

/** A `bigint` becomes a number where that is exact. */
export const intOf = (value: number | bigint): RenderedValue => {
  const near = Number(value)
  return { _tag: "int", value: Number.isSafeInteger(near) ? near : value }
}

/** The text as it is: who writes it escapes it (`ByteSink.tree`, `valueText`). */
export const stringOf = (text: string): RenderedValue => ({ _tag: "string", value: text })

export const pointerOf = (value: bigint): RenderedValue => ({ _tag: "pointer", value })

export const hexOf = (view: DataView, at: number, length: number): RenderedValue => ({
  _tag: "bytes",
  hex: Buffer.from(view.buffer, view.byteOffset + at, length).toString("hex")
})

/** Something that should be there, `{"$unreadable":"0xffff… is not mapped"}` as JSON. It is counted where it is a loss. */
export const missing = (reason: Reason): RenderedValue => ({ _tag: "missing", reason })
