import type { Codec } from "../../../btf/render/Codec.ts"
import type { Reason } from "../../../core/Reason.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import type { Details } from "../../Report.ts"

/** A map as it is read: its walk, and the codecs of what the walk gives. */
export interface OpenedLiveMap {
  readonly walk: () => EntryWalk
  /** Instead of the map's own, where its BTF does not describe what the walk gives. */
  readonly key?: Codec
  readonly value?: Codec
  readonly details?: Details
  /** A limit of the source itself: bpf(2) does not give this. */
  readonly problem?: Reason
}
