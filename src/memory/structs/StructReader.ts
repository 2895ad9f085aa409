import * as Either from "effect/Either"
import type { Layout } from "../../btf/Layout.ts"
import { cString } from "../../core/CString.ts"
import { corrupted, type Reason } from "../../core/Reason.ts"
import type { KernelSpace } from "../KernelSpace.ts"

/** No kernel object that is read here is longer, in bytes; what claims to be is corrupted. */
export const OBJECT_LIMIT = 2 ** 16

/** Elements of an array of pointers that are believed. */
export const ARRAY_LIMIT = 65536

/** Bytes of a string that are read: `KSYM_NAME_LEN`, the kernel's longest name (include/linux/kallsyms.h, v6.1 and newer). */
const TEXT_LIMIT = 512

/** A value that was read, or the reason why it could not be. */
export type Read<A> = Either.Either<A, Reason>

/**
 * A copy of a kernel struct. Fields go by their names in its layout and are read in the width that the kernel's BTF gives
 * them, bit-fields too; an optional field that this kernel's struct does not have is undefined.
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

/**
 * Reads single structs, numbers and strings of a kernel, each with its reason where it cannot be read. Not for loops over
 * a map's elements: those use `KernelSpace.window`.
 */
export class StructReader {
  constructor(readonly space: KernelSpace) {}

  /** A copy of the struct of that layout at an address. */
  struct<Required extends string, Optional extends string = never>(
    layout: Layout<Required, Optional>,
    address: bigint
  ): Read<KernelStruct<Required, Optional>> {
    const { size, struct } = layout
    if (size > OBJECT_LIMIT) return Either.left(corrupted(`a struct ${struct} of ${size} bytes`))
    const bytes = this.space.read(address, size)
    return bytes === undefined ? this.fault() : Either.right(new KernelStruct(layout, new DataView(bytes.buffer)))
  }

  u64(address: bigint): Read<bigint> {
    const value = this.space.u64(address)
    return value === undefined ? this.fault() : Either.right(value)
  }

  u32(address: bigint): Read<number> {
    const value = this.space.u32(address)
    return value < 0 ? this.fault() : Either.right(value)
  }

  /** The NUL-terminated text at an address, cut after `limit` bytes; it may end just before what is not mapped. */
  text(address: bigint, limit = TEXT_LIMIT): Read<string> {
    let text = Buffer.alloc(0)
    while (text.length < limit) {
      const at = address + BigInt(text.length)
      const piece = this.space.read(at, Math.min(limit - text.length, 4096 - Number(at & 4095n)))
      if (piece === undefined) return this.fault()
      text = Buffer.concat([text, piece])
      if (piece.includes(0)) break
    }
    return Either.right(cString(text))
  }

  private fault(): Read<never> {
    return Either.left(this.space.faultReason)
  }
}

/** A copy of a struct at an address. Undefined where it cannot be read (`space.faultText`), or the pointer is null. */
export const structAt = (
  space: KernelSpace,
  { size }: { readonly size: number },
  address: bigint
): DataView | undefined => {
  const bytes = space.read(address, size)
  return bytes === undefined ? undefined : new DataView(bytes.buffer)
}
