import type { Btf } from "./Btf.ts"
import { Kind, type KindName } from "./BtfType.ts"

/**
 * A blob's header: offsets from the header's end, all in bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface BtfHeader {
  readonly magic: number
  readonly version: number
  readonly flags: number
  readonly headerLength: number
  readonly typeOffset: number
  readonly typeLength: number
  readonly stringOffset: number
  readonly stringLength: number
  /** Of the layout section, which tells the sizes of kinds; null where the header is older (before v7.2). */
  readonly layoutOffset: number | null
  readonly layoutLength: number | null
}

/**
 * The header of a blob that `Btf.parse` has taken.
 * @see include/uapi/linux/btf.h `struct btf_header`, v6.1 to v7.3
 * @since 0.1.0
 * @category reading
 */
export const headerOf = (bytes: Uint8Array): BtfHeader => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const headerLength = view.getUint32(4, true)
  return {
    magic: view.getUint16(0, true),
    version: view.getUint8(2),
    flags: view.getUint8(3),
    headerLength,
    typeOffset: view.getUint32(8, true),
    typeLength: view.getUint32(12, true),
    stringOffset: view.getUint32(16, true),
    stringLength: view.getUint32(20, true),
    layoutOffset: headerLength < 32 ? null : view.getUint32(24, true),
    layoutLength: headerLength < 32 ? null : view.getUint32(28, true)
  }
}

/**
 * The number of types of a kind.
 *
 * @since 0.1.0
 * @category models
 */
export interface KindCount {
  /** `KIND_33` for kinds that this reader does not know. */
  readonly kind: KindName | `KIND_${number}`
  readonly count: number
}

/**
 * The types of a blob by kind, without those of its base: the kinds that it has, in their order on disk.
 *
 * @since 0.1.0
 * @category reading
 */
export const kindCounts = (btf: Btf): ReadonlyArray<KindCount> => {
  const counts = new Map<number, number>()
  for (let id = btf.firstId; id < btf.endId; id++) {
    const kind = btf.kindOf(id)
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  const names = new Map<number, KindName>((Object.keys(Kind) as Array<KindName>).map((name) => [Kind[name], name]))
  return [...counts].toSorted(([a], [b]) => a - b).map(([number, count]) => ({
    kind: names.get(number) ?? `KIND_${number}`,
    count
  }))
}
