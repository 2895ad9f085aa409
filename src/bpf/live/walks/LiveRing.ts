import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import type { Btf } from "../../../btf/Btf.ts"
import { ringBufferOffsets } from "../../../btf/offsets/bpf/RingBuffer.ts"
import type { SyscallError } from "../../../core/Errors.ts"
import type { NativeService } from "../../../core/Native.ts"
import { absent, corrupted, unreadable } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import type { Details } from "../../Report.ts"
import { RECORD_HEADER, recordLength, recordStride } from "../../values/RingRecord.ts"

const PAGE = 4096
/** A RINGBUF or USER_RINGBUF, mapped to be read only: nothing is consumed. */
export interface LiveRing {
  readonly details: () => Details
  readonly walk: () => EntryWalk
}

/**
 * The kernel maps the consumer's page, the producer's, and the data, twice in a row.
 * @see kernel/bpf/ringbuf.c `ringbuf_map_mmap_kern`, `ringbuf_map_mmap_user`, `struct bpf_ringbuf`; v6.12
 */
export const openLiveRing = (
  native: NativeService,
  btf: Btf,
  fd: number,
  size: number
): Effect.Effect<LiveRing, SyscallError, Scope.Scope> =>
  Effect.gen(function*() {
    const memory = yield* native.mmap(fd, 0, 2 * PAGE + 2 * size, "read")
    let mapped = true
    yield* Effect.addFinalizer(() => Effect.sync(() => mapped = false))
    const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength)
    const consumer = () => Number(view.getBigUint64(0, true))
    const producer = () => Number(view.getBigUint64(PAGE, true))
    const ring = Either.getOrUndefined(ringBufferOffsets.resolve(btf))?.ring.at
    const pendingAt = ring?.pending_pos === undefined ? undefined : PAGE + ring.pending_pos - ring.producer_pos
    return {
      details: () => ({
        size,
        consumer: consumer(),
        producer: producer(),
        ...(pendingAt === undefined ? {} : { pending: Number(view.getBigUint64(pendingAt, true)) })
      }),
      walk: () => {
        if (!mapped) {
          const ended = new RingCopyWalk(new DataView(new ArrayBuffer(0)), 0)
          ended.problems.add(unreadable("its scope has closed, and the map with it"))
          return ended
        }
        const from = consumer()
        const to = producer()
        const broken = from > to || to - from > size || from % 8 !== 0 || to % 8 !== 0
        // A copy, so that a record cannot change between its header and its end.
        const start = 2 * PAGE + from % size
        const data = memory.slice(start, broken ? start : start + to - from)
        const walk = new RingCopyWalk(new DataView(data.buffer), from)
        if (broken) {
          walk.problems.add(corrupted(`consumer at ${from}, producer at ${to} of a ring of ${size} bytes`))
        }
        const after = consumer()
        if (after > from) walk.passed(after)
        return walk
      }
    }
  })

/** The records of a ring that are not consumed. The key is the position: bytes since the ring was made. */
class RingCopyWalk implements EntryWalk {
  readonly keyView = new DataView(new ArrayBuffer(8))
  readonly keyAt = 0
  readonly keyLength = 8
  /** Behind the record's header, which the codec looks at. */
  valueAt = 0
  valueLength = 0
  readonly problems = new WalkProblems()
  private at = 0
  private least: number

  constructor(readonly valueView: DataView, private readonly start: number) {
    this.least = start
  }

  /** The consumer went on while the bytes were copied: what lies before may have been overwritten. */
  passed(consumer: number): void {
    this.least = consumer
  }

  next(): boolean {
    const { start, valueView } = this
    while (this.at < valueView.byteLength) {
      const position = start + this.at
      const left = valueView.byteLength - this.at - RECORD_HEADER
      const length = left < 0 ? 0 : recordLength(valueView, this.at)
      if (length > left) {
        // A record that was overwritten has no length to go on from.
        this.problems.add(
          position >= this.least
            ? corrupted(`record at ${position}: has ${length} bytes, ${left} are left`)
            : absent("records were consumed while they were read: some are missing")
        )
        this.at = valueView.byteLength
        return false
      }
      this.valueAt = this.at + RECORD_HEADER
      this.valueLength = length
      this.at += recordStride(length)
      if (position < this.least) continue
      this.keyView.setBigUint64(0, BigInt(position), true)
      return true
    }
    return false
  }

  value(): boolean {
    return true
  }
}
