import { cString } from "../core/CString.ts"
import type { Layout } from "./Layout.ts"

/**
 * The bytes of a kernel struct, from its start. Fields go by their names in its layout and are read in the width that the
 * kernel's BTF gives them, bit-fields too; an optional field that this kernel's struct does not have is undefined.
 */
export class KernelStruct<Required extends string, Optional extends string = never> {
  constructor(private readonly layout: Layout<Required, Optional>, private readonly view: DataView) {}

  /** An unsigned integer of at most 8 bytes, rounded above 2^53. */
  uint(field: Required): number
  uint(field: Required | Optional): number | undefined
  uint(field: Required | Optional): number | undefined {
    const { at, bits, sizeOf } = this.layout
    const start: number | undefined = at[field]
    if (start === undefined) return undefined
    let value = 0
    for (let byte = Math.min(sizeOf[field] ?? 0, 8) - 1; byte >= 0; byte--) {
      value = value * 256 + this.view.getUint8(start + byte)
    }
    const field_ = bits[field]
    return field_ === undefined ? value : Math.floor(value / 2 ** (field_.offset % 8)) % 2 ** field_.size
  }

  /** A signed integer of at most 8 bytes, rounded outside ±2^53. */
  int(field: Required): number
  int(field: Required | Optional): number | undefined
  int(field: Required | Optional): number | undefined {
    const value = this.u64(field)
    const width = this.layout.bits[field]?.size ?? Math.min(this.layout.sizeOf[field] ?? 0, 8) * 8
    return value === undefined ? undefined : Number(BigInt.asIntN(width, value))
  }

  /** A pointer, or an unsigned integer without rounding. */
  u64(field: Required): bigint
  u64(field: Required | Optional): bigint | undefined
  u64(field: Required | Optional): bigint | undefined {
    const start: number | undefined = this.layout.at[field]
    if (start === undefined) return undefined
    return (this.layout.sizeOf[field] ?? 0) < 8 || this.layout.bits[field] !== undefined
      ? BigInt(this.uint(field) ?? 0)
      : this.view.getBigUint64(start, true)
  }

  /** The NUL-terminated text in an array of characters. */
  text(field: Required): string
  text(field: Required | Optional): string | undefined
  text(field: Required | Optional): string | undefined {
    const start: number | undefined = this.layout.at[field]
    return start === undefined ? undefined : cString(this.view, start, this.layout.sizeOf[field] ?? 0)
  }

  /** The bytes of a field, which may be a struct or an array. */
  bytes(field: Required): DataView
  bytes(field: Required | Optional): DataView | undefined
  bytes(field: Required | Optional): DataView | undefined {
    const start: number | undefined = this.layout.at[field]
    if (start === undefined) return undefined
    return new DataView(this.view.buffer, this.view.byteOffset + start, this.layout.sizeOf[field] ?? 0)
  }
}
