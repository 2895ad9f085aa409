import type { Codec } from "../../btf/render/Codec.ts"

/** The key of an array whose creator gave it no type: an unsigned 32-bit index. */
export const indexCodec: Codec = {
  size: 4,
  hides: null,
  refers: false,
  json: (view, at, out) => {
    out.text(String(view.getUint32(at, true)))
    return false
  },
  tree: (view, at) => ({ _tag: "int", value: view.getUint32(at, true) })
}
