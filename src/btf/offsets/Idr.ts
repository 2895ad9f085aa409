import { layout } from "../Layout.ts"
import { offsetGroup } from "../OffsetGroup.ts"

/**
 * Sparse arrays. `slots` is an array of 64 entries, of 16 with CONFIG_BASE_SMALL; `shift` is a u8.
 * @see include/linux/xarray.h `struct xarray`, `struct xa_node`, v4.20 to v7.3
 */
export const xarrayOffsets = offsetGroup("xarray", "sparse arrays", function*(btf) {
  return {
    xarray: yield* layout(btf, "xarray", ["xa_head"]),
    node: yield* layout(btf, "xa_node", ["shift", "slots"])
  }
})

/**
 * Objects by number, such as all maps and all programs; a sparse array whose indices count from `idr_base`. `idr_next`
 * is where the search for a free number starts, not a bound: numbers wrap. With `xarrayOffsets` the ktstr crate's
 * `IdrOffsets`.
 * @see include/linux/idr.h `struct idr`, v4.20 to v7.3
 */
export const idrOffsets = offsetGroup("idr", "objects by number: all maps, all programs", function*(btf) {
  return { idr: yield* layout(btf, "idr", ["idr_rt", "idr_rt.xa_head", "idr_base", "idr_next"]) }
})
