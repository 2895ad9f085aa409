import * as Either from "effect/Either"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import { ringBufferOffsets } from "../../../btf/offsets/bpf/RingBuffer.ts"
import { kvaOffset, kvaPage } from "../../../core/Address.ts"
import { corrupted, type Reason, within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import type { KernelSpace } from "../../../memory/KernelSpace.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { positionCodec, RECORD_HEADER, recordCodec, recordLength, recordStride } from "../../values/RingRecord.ts"
import type { MapOpener } from "./GuestMap.ts"

/** A ring's bytes, which the kernel maps twice in a row, and the positions that bound what is in it. */
interface Ring {
  readonly page: number
  readonly offset: number
  readonly size: number
  readonly consumer: number
  readonly producer: number
}

/**
 * The records of a RINGBUF or USER_RINGBUF that are not consumed yet. bpf(2) has no keys here: the key is the record's
 * position, a count of bytes since the ring was made. A record that wraps is in one piece: the kernel maps the ring twice.
 * @see kernel/bpf/ringbuf.c `struct bpf_ringbuf`, `struct bpf_ringbuf_hdr`, `__bpf_user_ringbuf_peek`, v6.12
 */
class RingWalk implements EntryWalk {
  readonly keyView = new DataView(new ArrayBuffer(8))
  readonly keyAt = 0
  readonly keyLength = 8
  valueView: DataView
  /** Behind the record's header, which a codec may look at. */
  valueAt = 0
  valueLength = 0
  readonly problems = new WalkProblems()
  private position: number

  constructor(private readonly space: KernelSpace, private readonly ring: Ring) {
    this.position = ring.consumer
    this.valueView = space.view
  }

  next(): boolean {
    const { offset, page, producer, size } = this.ring
    while (this.position < producer) {
      const position = this.position
      const at = offset + position % size
      if (!this.space.window(page, at, RECORD_HEADER)) {
        return this.end(within(`record at ${position}`, this.space.faultReason))
      }
      const length = recordLength(this.space.view, this.space.at)
      this.position += recordStride(length)
      if (this.position > producer) {
        const left = producer - position - RECORD_HEADER
        return this.end(corrupted(`record at ${position}: has ${length} bytes, ${left} are left`))
      }
      if (!this.space.window(page, at, RECORD_HEADER + length)) {
        this.problems.add(within(`record at ${position}`, this.space.faultReason))
        continue
      }
      this.keyView.setBigUint64(0, BigInt(position), true)
      this.valueView = this.space.view
      this.valueAt = this.space.at + RECORD_HEADER
      this.valueLength = length
      return true
    }
    return false
  }

  value(): boolean {
    return true
  }

  /** Without a header there is no next record. */
  private end({ kind, text }: Reason): false {
    this.problems.add({ kind, text: `${text}; walk ended` })
    this.position = this.ring.producer
    return false
  }
}

const ringLayouts = memoizeByBtf((btf) =>
  Either.gen(function*() {
    return { ...(yield* ringBufferOffsets.resolve(btf)), bytes: yield* layout(btf, "bpf_ringbuf", ["data"]) }
  })
)

export const openRing: MapOpener = ({ info, kernel, offset, page, space }) =>
  Either.gen(function*() {
    const { bytes: { at: { data } }, map, ring } = yield* ringLayouts(kernel.btf)
    const unreadable = () => Either.left(space.faultReason)
    if (!space.window(page, offset + map.at.rb, 8)) return yield* unreadable()
    const address = space.view.getBigUint64(space.at, true)
    const read = (field: number): number => {
      const value = space.u64(address + BigInt(field))
      return value === undefined ? NaN : Number(value)
    }
    const [mask, consumer, producer] = [ring.at.mask, ring.at.consumer_pos, ring.at.producer_pos].map(read)
    if (Number.isNaN(mask + consumer + producer)) return yield* unreadable()
    const size = mask + 1
    const pending = ring.at.pending_pos === undefined ? undefined : read(ring.at.pending_pos)
    // User space writes one of the positions and may write nonsense.
    const inOrder = consumer <= producer && producer - consumer <= size && producer <= Number.MAX_SAFE_INTEGER
    if (size !== info.maxEntries || !inOrder || consumer % 8 !== 0 || producer % 8 !== 0) {
      return yield* Either.left(
        corrupted(
          `consumer at ${consumer}, producer at ${producer} of a ring of ${size} bytes, made as ${info.maxEntries}`
        )
      )
    }
    const bytes = address + BigInt(data)
    const where = { page: kvaPage(bytes), offset: kvaOffset(bytes), size, consumer, producer }
    return {
      walk: () => new RingWalk(space, where),
      key: positionCodec,
      value: recordCodec,
      details: { size, consumer, producer, ...(pending === undefined ? {} : { pending }) }
    }
  })
