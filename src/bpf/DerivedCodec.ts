import type { Codec } from "../btf/Codec.ts"
import type { RenderedValue } from "../btf/RenderedValue.ts"
import { toJson } from "../btf/RenderedValue.ts"

/**
 * A codec for what no C type describes: a pointer shown as what it points at, a record of any length. It allocates, so
 * it is not for maps of plain values. `render` gets the walk's bytes and how many of them are the key or value.
 */
export const derivedCodec = (render: (view: DataView, at: number, length: number) => RenderedValue): Codec => ({
  size: 0,
  json: (view, at, out, length = 0) => out.text(JSON.stringify(toJson(render(view, at, length)))),
  tree: (view, at, { length = 0 } = {}) => render(view, at, length)
})

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

/** Control characters, which a guest could send to the terminal, become `?`. */
export const stringOf = (text: string): RenderedValue => ({
  _tag: "string",
  value: text.replaceAll(/\p{Cc}/gu, "?")
})

export const pointerOf = (value: bigint): RenderedValue => ({ _tag: "pointer", value })

export const hexOf = (view: DataView, at: number, length: number): RenderedValue => ({
  _tag: "bytes",
  hex: Buffer.from(view.buffer, view.byteOffset + at, length).toString("hex")
})

/** Something that should be there: `{"$unreadable":"0xffff… is not mapped"}`. */
export const unreadable = (why: string): RenderedValue => objectOf({ $unreadable: stringOf(why) })
