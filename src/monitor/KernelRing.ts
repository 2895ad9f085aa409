import * as Either from "effect/Either"
import type { Btf } from "../btf/Btf.ts"
import { layout } from "../btf/Layout.ts"
import { memoizeByBtf } from "../btf/MemoizeByBtf.ts"
import { absent, corrupted, type Reason, toReason, truncated } from "../core/Reason.ts"
import { type LogLine, microsOf } from "../host/KernelLog.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { type Read, StructReader } from "../memory/structs/StructReader.ts"

/** More than CONFIG_LOG_BUF_SHIFT (at most 25) and log_buf_len= give: descriptors, and bytes of text, as powers of 2. */
const MOST_COUNT_BITS = 24
const MOST_SIZE_BITS = 30
/** Records, and characters of their text, that are read of all: 16 and 32 times what CONFIG_LOG_BUF_SHIFT=17 gives. */
const MOST_RECORDS = 65536n
const MOST_TEXT = 2 ** 22
/** `DESC_ID_MASK`, and the states of `enum desc_state` in the two bits above whose text is whole. */
const ID_MASK = (1n << 62n) - 1n
const COMMITTED = 1n
const FINALIZED = 2n
/** `struct prb_data_block` begins with the descriptor's id. */
const BLOCK_ID_BYTES = 8n

/**
 * Part of a kernel's log: its lines, oldest first; `next` is where to go on from. `problem`: why some, or all, are
 * missing.
 *
 * @since 0.1.0
 * @category models
 */
export interface LogPart {
  readonly lines: ReadonlyArray<LogLine>
  readonly next: bigint | undefined
  readonly problem: Reason | null
}

const ringLayouts = memoizeByBtf((btf: Btf) =>
  Either.all({
    ring: layout(btf, "printk_ringbuffer", [
      "desc_ring.count_bits",
      "desc_ring.descs",
      "desc_ring.infos",
      "desc_ring.head_id",
      "desc_ring.tail_id",
      "text_data_ring.size_bits",
      "text_data_ring.data"
    ]),
    desc: layout(btf, "prb_desc", ["state_var", "text_blk_lpos.begin", "text_blk_lpos.next"]),
    info: layout(btf, "printk_info", ["ts_nsec", "text_len"])
  })
)

/**
 * The log of a kernel in memory: what `dmesg` prints.
 * @param from `next` of an earlier part, of a kernel that runs: what came since, up to a record that is not finished.
 *   If not given, all that the ring holds, unfinished lines too: the newest 65,536 records, 4 MiB of text.
 * @see kernel/printk/printk_ringbuffer.h, v5.10 to v7.3
 *
 * @since 0.1.0
 * @category reading
 */
export const readKernelRing = (kernel: GuestKernelService, from?: bigint): LogPart =>
  Either.match(read(kernel, from), {
    onLeft: (problem) => ({ lines: [], next: from, problem }),
    onRight: (part) => part
  })

const read = ({ btf, space, symbols }: GuestKernelService, from: bigint | undefined): Either.Either<LogPart, Reason> =>
  Either.gen(function*() {
    const { desc, info, ring } = yield* Either.mapLeft(ringLayouts(btf), toReason)
    const pointer = symbols.address("prb")
    if (pointer === undefined) {
      return yield* Either.left(absent("the kernel's log: it has no symbol prb (before v5.10)"))
    }
    const reader = new StructReader(space)
    const found = yield* reader.struct(ring, yield* reader.u64(pointer))
    const countBits = found.uint("desc_ring.count_bits")
    const sizeBits = found.uint("text_data_ring.size_bits")
    if (countBits > MOST_COUNT_BITS || sizeBits > MOST_SIZE_BITS) {
      return yield* Either.left(corrupted(`the kernel's log: a ring of 2^${countBits} records, 2^${sizeBits} bytes`))
    }
    const count = 1n << BigInt(countBits)
    const head = found.u64("desc_ring.head_id") & ID_MASK
    const tail = found.u64("desc_ring.tail_id") & ID_MASK
    const behind = (head - tail) & ID_MASK
    if (behind >= count) {
      return yield* Either.left(corrupted(`the kernel's log: ${behind + 1n} records in a ring of ${count}`))
    }
    const sizeMask = (1n << BigInt(sizeBits)) - 1n
    const readable = from === undefined ? [COMMITTED, FINALIZED] : [FINALIZED]
    /** Undefined of one whose text is not, or no more, to be had. */
    const recordAt = (id: bigint): Read<ReadonlyArray<LogLine> | undefined> =>
      Either.gen(function*() {
        const slot = id & (count - 1n)
        const descAt = found.u64("desc_ring.descs") + slot * BigInt(desc.size)
        const record = yield* reader.struct(desc, descAt)
        const state = record.u64("state_var")
        if ((state & ID_MASK) !== id || !readable.includes(state >> 62n)) return undefined
        const begin = record.u64("text_blk_lpos.begin")
        const next = record.u64("text_blk_lpos.next")
        const facts = yield* reader.struct(info, found.u64("desc_ring.infos") + slot * BigInt(info.size))
        const length = facts.uint("text_len")
        if ((begin & 1n) !== 0n || length === 0) return [] // a record without text
        const wraps = begin >> BigInt(sizeBits) !== (next - 1n) >> BigInt(sizeBits)
        const at = found.u64("text_data_ring.data") + (wraps ? 0n : begin & sizeMask)
        const owner = yield* reader.u64(at)
        const bytes = space.read(at + BLOCK_ID_BYTES, length)
        if (bytes === undefined) return yield* Either.left(space.faultReason)
        const again = yield* reader.struct(desc, descAt) // while its kernel runs another record may get its place
        if (owner !== id || (again.u64("state_var") & ID_MASK) !== id) return undefined
        const atMicros = microsOf(Math.floor(facts.uint("ts_nsec") / 1000))
        return Buffer.from(bytes).toString().split("\n").map((text) => ({ atMicros, text }))
      })
    const oldest = behind < MOST_RECORDS ? tail : (head - MOST_RECORDS + 1n) & ID_MASK
    // ids count on around 2^62: they are compared by their distance
    const since = (id: bigint, other: bigint) => (id - other) & ID_MASK
    const first = from !== undefined && since(from, oldest) <= since(head, oldest) + 1n ? from : oldest
    const records: Array<ReadonlyArray<LogLine>> = []
    let next = (head + 1n) & ID_MASK
    let text = 0
    let id = head
    // the newest first: they are what a dump is for
    for (; since(id, first) < count && text <= MOST_TEXT; id = (id - 1n) & ID_MASK) {
      const record = yield* recordAt(id)
      if (record === undefined && from !== undefined && id === head) next = head
      for (const line of record ?? []) text += line.text.length + 1
      records.push(record ?? [])
    }
    const left = since(id + 1n, first === from ? first : tail)
    return {
      lines: records.reverse().flat(),
      next,
      problem: left === 0n ? null : truncated(`the kernel's log: its ${left} oldest records are left out`)
    }
  })
