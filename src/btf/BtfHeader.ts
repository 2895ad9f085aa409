import type { Btf } from "./Btf.ts"
import { Kind, type KindName } from "./BtfType.ts"

/** The frame of a blob: its header's words, offsets counted from the header's end, all in bytes. */
export interface BtfHeader {
  readonly magic: number
  readonly version: number
  readonly flags: number
  readonly headerLength: number
  readonly typeOffset: number
  readonly typeLength: number
  readonly stringOffset: number
  readonly stringLength: number
}

/**
 * The header of a blob that `Btf.parse` has taken.
 * @see include/uapi/linux/btf.h `struct btf_header`, v6.12
 */
export const headerOf = (bytes: Uint8Array): BtfHeader => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return {
    magic: view.getUint16(0, true),
    version: view.getUint8(2),
    flags: view.getUint8(3),
    headerLength: view.getUint32(4, true),
    typeOffset: view.getUint32(8, true),
    typeLength: view.getUint32(12, true),
    stringOffset: view.getUint32(16, true),
    stringLength: view.getUint32(20, true)
  }
}

/** How many types of each kind a blob has, those of its base not counted; only kinds that it has, in their order. */
export const kindCounts = (btf: Btf): ReadonlyArray<{ readonly kind: KindName; readonly count: number }> => {
  const counts = new Map<number, number>()
  for (let id = btf.firstId; id < btf.endId; id++) {
    const kind = btf.kindOf(id)
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  return (Object.keys(Kind) as Array<KindName>).flatMap((kind) => {
    const count = counts.get(Kind[kind])
    return count === undefined ? [] : [{ kind, count }]
  })
}
