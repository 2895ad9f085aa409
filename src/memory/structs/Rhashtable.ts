import * as Either from "effect/Either"
import { KernelStruct } from "../../btf/KernelStruct.ts"
import { type Layout, layout, type LayoutError } from "../../btf/Layout.ts"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { hex } from "../../core/Address.ts"
import { corrupted, type Reason, truncated } from "../../core/Reason.ts"
import type { KernelSpace } from "../KernelSpace.ts"
import { NODE_LIMIT, type Nodes } from "./ListHead.ts"
import { StructReader } from "./StructReader.ts"

/** Tables behind one another: the kernel has two while it moves elements, and three when that table is outgrown meanwhile. */
const TABLE_LIMIT = 8
/** Buckets of one table: `rht_bucket_nested` has 32-bit hashes, but no table of ours is that large. */
const BUCKET_LIMIT = 2 ** 22
/** Pointers in a page, of which nested tables are made. */
const NESTED = 512

type BucketTable = "size" | "nest" | "future_tbl" | "buckets"

/** Where a kernel keeps the parts of a `struct rhashtable`. */
export interface RhashtableLayout {
  readonly table: Layout<"tbl">
  readonly buckets: Layout<BucketTable>
}

export const rhashtableLayout = memoizeByBtf((btf): Either.Either<RhashtableLayout, LayoutError> =>
  Either.gen(function*() {
    return {
      table: yield* layout(btf, "rhashtable", ["tbl"]),
      buckets: yield* layout(btf, "bucket_table", ["size", "nest", "future_tbl", "buckets"])
    }
  })
)

/**
 * The elements of the `struct rhashtable` at an address, each the address of its `struct rhash_head`. While the kernel
 * moves elements into a larger table some are in the one, some in the other, and one may be in both: it is given once.
 * A chain or table that cannot be read gives a problem, the first of which is told; the walk goes on beside it.
 * @see include/linux/rhashtable.h `struct bucket_table`, `rht_ptr`; lib/rhashtable.c `rht_bucket_nested`,
 * `rhashtable_rehash_one`; v6.12
 */
export const rhashtableNodes = (space: KernelSpace, layout: RhashtableLayout, address: bigint): Nodes => {
  const walk = new RhashtableWalk(space, layout)
  walk.tables(address)
  return { nodes: [...walk.found.keys()], problem: walk.problem }
}

class RhashtableWalk {
  /** By element the number of the last table that it was found in. */
  readonly found = new Map<bigint, number>()
  problem: Reason | undefined
  private readonly reader: StructReader

  constructor(private readonly space: KernelSpace, private readonly layout: RhashtableLayout) {
    this.reader = new StructReader(space)
  }

  tables(address: bigint): void {
    const { layout: { buckets, table }, reader } = this
    const seen = new Set<bigint>()
    let next = Either.map(reader.struct(table, address), (head) => head.u64("tbl"))
    while (Either.isRight(next) && next.right !== 0n) {
      const at = next.right
      if (seen.has(at) || seen.size === TABLE_LIMIT) return this.failed(corrupted(`tables without end at ${hex(at)}`))
      seen.add(at)
      const found = reader.struct(buckets, at)
      if (Either.isRight(found)) this.buckets(found.right, at + BigInt(buckets.at.buckets), seen.size)
      next = Either.map(found, (header) => header.u64("future_tbl"))
    }
    if (Either.isLeft(next)) this.failed(next.left)
  }

  private failed(problem: Reason): void {
    this.problem ??= problem
  }

  private buckets(header: KernelStruct<BucketTable>, start: bigint, table: number): void {
    const size = header.uint("size")
    const nest = header.uint("nest")
    if (size > BUCKET_LIMIT || Math.log2(size) % 1 !== 0 || 2 ** nest > size) {
      return this.failed(corrupted(`a table of ${size} buckets, nested by ${nest} bits`))
    }
    if (nest === 0) return this.row(start, size, table)
    const top = this.space.u64(start)
    if (top === undefined) return this.failed(this.space.faultReason)
    this.nested(top, 2 ** nest, size / 2 ** nest, table)
  }

  /** A table of pointers to tables, which have `below` buckets each. */
  private nested(start: bigint, count: number, below: number, table: number): void {
    for (let index = 0; index < count; index++) {
      const next = this.space.u64(start + BigInt(index * 8))
      if (next === undefined) return this.failed(this.space.faultReason)
      if (next === 0n) continue
      if (below > NESTED) this.nested(next, NESTED, below / NESTED, table)
      else this.row(next, below, table)
    }
  }

  private row(start: bigint, count: number, table: number): void {
    for (let index = 0; index < count; index++) {
      const head = this.space.u64(start + BigInt(index * 8))
      if (head === undefined) return this.failed(this.space.faultReason)
      this.chain(head & ~1n, table) // bit 0 is the bucket's lock
    }
  }

  /** An odd pointer ends a chain: include/linux/list_nulls.h. */
  private chain(first: bigint, table: number): void {
    for (let node: bigint | undefined = first; node !== 0n && (node & 1n) === 0n;) {
      if (this.found.get(node) === table) return this.failed(corrupted(`${hex(node)} is in the table twice`))
      if (this.found.size === NODE_LIMIT) return this.failed(truncated(`more than ${NODE_LIMIT} elements`))
      const next = this.space.u64(node)
      if (next === undefined) return this.failed(this.space.faultReason)
      this.found.set(node, table)
      node = next
    }
  }
}
