import { hex } from "../../core/Address.ts"
import type { KernelSpace } from "../KernelSpace.ts"

/** Bytes of a name that are looked at: `KSYM_NAME_LEN`, the kernel's longest (include/linux/kallsyms.h, v6.1 and newer). */
const NAME_LIMIT = 512

/** Elements of an array of pointers that are believed; the kernel's own limits (64 used maps, 256 functions) are lower. */
export const ARRAY_LIMIT = 65536

/** A copy of a struct at an address. Undefined where it cannot be read (`space.faultText`), or the pointer is null. */
export const structAt = (
  space: KernelSpace,
  { size }: { readonly size: number },
  address: bigint
): DataView | undefined => {
  const bytes = space.read(address, size)
  return bytes === undefined ? undefined : new DataView(bytes.buffer)
}

/** The NUL-terminated text in a field of `size` bytes, as UTF-8 with replacement characters for what is none. */
export const stringAt = (view: DataView, at: number, size: number): string => {
  const bytes = Buffer.from(view.buffer, view.byteOffset + at, size)
  const end = bytes.indexOf(0)
  return bytes.toString("utf8", 0, end < 0 ? size : end)
}

/** The string that a pointer leads to; it may end just before what is not mapped. Cut after 512 bytes. */
export const stringBehind = (space: KernelSpace, address: bigint): string | undefined => {
  let text = Buffer.alloc(0)
  while (text.length < NAME_LIMIT) {
    const at = address + BigInt(text.length)
    const piece = space.read(at, Math.min(NAME_LIMIT - text.length, 4096 - Number(at & 4095n)))
    if (piece === undefined) return undefined
    const end = piece.indexOf(0)
    text = Buffer.concat([text, end < 0 ? piece : piece.subarray(0, end)])
    if (end >= 0) break
  }
  return text.toString()
}

/** Nodes of one list that are believed. */
const LIST_LIMIT = 2 ** 18

/**
 * The nodes of a list from `first` on, each the address of its `next` pointer, up to `end`: the head's own address of a
 * `list_head`, 0 of a `hlist_head`. One that cannot be read, or comes twice, ends the list with a problem.
 * @see include/linux/types.h `struct list_head`, `struct hlist_node`, v6.12
 */
export const listNodes = (
  space: KernelSpace,
  first: bigint,
  end: bigint
): { readonly nodes: ReadonlyArray<bigint>; readonly problem: string | undefined } => {
  const nodes = new Set<bigint>()
  for (let node = first; node !== end;) {
    if (nodes.has(node)) return { nodes: [...nodes], problem: `${hex(node)} is in the list twice` }
    if (nodes.size === LIST_LIMIT) {
      return { nodes: [...nodes], problem: `more than ${LIST_LIMIT} nodes: the walk ended` }
    }
    const next = space.u64(node)
    if (next === undefined) return { nodes: [...nodes], problem: space.faultText }
    nodes.add(node)
    node = next
  }
  return { nodes: [...nodes], problem: undefined }
}

/** The first call makes it. */
export const lazily = <A>(make: () => A): () => A => {
  let made: { readonly value: A } | undefined
  return () => (made ??= { value: make() }).value
}
