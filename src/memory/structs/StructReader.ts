import * as Either from "effect/Either"
import { KernelStruct } from "../../btf/KernelStruct.ts"
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
