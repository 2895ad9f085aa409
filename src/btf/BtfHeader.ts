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

/** Magic, version and flags of a little-endian blob. */
const START = Buffer.of(0x9f, 0xeb, 1, 0)
/** Of the header, with its newest fields; v7.3. */
const MOST_HEADER = 32

/**
 * The longest blob in a file without a table of sections, as an arm64 kernel's `Image`: a kernel has programs of its own,
 * whose BTF is shorter.
 */
export const longestBlobIn = (bytes: Uint8Array): Uint8Array | undefined => {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let longest: Uint8Array | undefined
  for (let at = buffer.indexOf(START); at >= 0; at = buffer.indexOf(START, at + 1)) {
    if (at + MOST_HEADER > bytes.length) break
    const { headerLength, layoutLength, layoutOffset, stringLength, stringOffset, typeLength, typeOffset } = headerOf(
      bytes.subarray(at, at + MOST_HEADER)
    )
    if (headerLength < 24 || headerLength > MOST_HEADER || typeLength === 0 || stringLength === 0) continue
    const [strings, layouts] = [stringOffset + stringLength, (layoutOffset ?? 0) + (layoutLength ?? 0)]
    const length = headerLength + Math.max(typeOffset + typeLength, strings, layouts)
    if (at + length > bytes.length || length <= (longest?.length ?? 0)) continue
    // strings begin with the empty one, and all end in a NUL
    const [first, last] = [bytes[at + headerLength + stringOffset], bytes[at + headerLength + strings - 1]]
    if (first === 0 && last === 0) longest = bytes.subarray(at, at + length)
  }
  return longest
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
