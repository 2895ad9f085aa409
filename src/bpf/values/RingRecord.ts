import { derivedCodec, hexOf, intOf, objectOf, stringOf } from "./DerivedCodec.ts"

/** `BPF_RINGBUF_HDR_SZ`, `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT`; include/uapi/linux/bpf.h, v6.12. */
export const RECORD_HEADER = 8
const BUSY = 0x8000_0000
const DISCARDED = 0x4000_0000
const LENGTH = 0x3fff_ffff

/** Bytes of the data of the record whose header is at `at`. */
export const recordLength = (view: DataView, at: number): number => view.getUint32(at, true) & LENGTH

/** Bytes from a record's header to the next one's. */
export const recordStride = (length: number): number => Math.ceil((length + RECORD_HEADER) / 8) * 8

/** The key of a ring's record, which bpf(2) does not have: its position, in bytes since the ring was made. */
export const positionCodec = derivedCodec((view, at) => intOf(view.getBigUint64(at, true)))

/** `{ state, length, data }` of the data at `at`, behind its header: a busy record is reserved and still being written. */
export const recordCodec = derivedCodec((view, at, length) => {
  const header = view.getUint32(at - RECORD_HEADER, true)
  const state = (header & BUSY) !== 0 ? "busy" : (header & DISCARDED) !== 0 ? "discarded" : "committed"
  return objectOf({ state: stringOf(state), length: intOf(length), data: hexOf(view, at, length) })
})
