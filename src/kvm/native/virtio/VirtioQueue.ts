import type { GuestMemory } from "../../../memory/GuestMemory.ts"
import { Virtio, VirtioStruct } from "../abi/VirtioAbi.ts"
import { QUEUE_SIZE, type QueueState } from "../thread/VirtioMmio.ts"

/**
 * The work of a device on one chain of buffers: `request` are the bytes that the driver wrote, `room` how many may be
 * written back. The answer is those bytes; `"wait"` leaves the chain for later; `"broken"` means that no driver makes
 * such a chain.
 */
export type Serve = (request: Uint8Array, room: number) => Uint8Array | "wait" | "broken"

/** Most bytes of one chain, both directions together: guests are told of less. */
const MOST_BYTES = 2 ** 23
/** Limit of a round in bytes moved; the event loop has other work. */
const ROUND = 2 ** 22
/** Cost of a chain in addition to its bytes. */
const CHAIN = 2 ** 12

export interface Served {
  /** The queue's new `served`. */
  readonly served: number
  /**
   * `"idle"` until the driver rings again, `"busy"` where the round is over and the queue is not empty, `"broken"` where
   * the queue breaks the rules.
   */
  readonly state: "idle" | "busy" | "broken"
}

const descriptor = VirtioStruct.vring_desc.fields
const available = VirtioStruct.vring_avail.fields
const used = VirtioStruct.vring_used.fields
const element = VirtioStruct.vring_used_elem

/**
 * Serve the chains that a split queue offers, in order, for one round. All that is in guest memory may be hostile, and
 * may change meanwhile: each number is read once and checked, chains are no longer than their queue, and nothing but
 * guest RAM is touched.
 * @see Virtual I/O Device (VIRTIO) Version 1.2, 2.7 "Split Virtqueues"
 */
export const serveQueue = (memory: GuestMemory, queue: QueueState, serve: Serve): Served => {
  let { served } = queue
  if (!isUsable(memory, queue)) return { served, state: "broken" }
  const bytes = new Uint8Array(element.size)
  const view = new DataView(bytes.buffer)
  for (let left = ROUND;;) {
    const offered = (memory.u16(queue.available + available.idx) - served) & 0xffff
    if (offered === 0) return { served, state: "idle" }
    if (offered > queue.size) return { served, state: "broken" }
    if (left <= 0) return { served, state: "busy" }
    const slot = served % queue.size
    const head = memory.u16(queue.available + available.ring + 2 * slot)
    const chain = readChain(memory, queue, head)
    if (chain === undefined) return { served, state: "broken" }
    const request = gather(memory, chain.request)
    const answer = serve(request, chain.room)
    if (answer === "wait") return { served, state: "idle" }
    if (answer === "broken") return { served, state: "broken" }
    scatter(memory, chain.answer, answer)
    left -= CHAIN + request.length + answer.length

    view.setUint32(element.fields.id, head, true)
    view.setUint32(element.fields.len, answer.length, true)
    memory.write(queue.used + used.ring + element.size * slot, bytes)
    served = (served + 1) & 0xffff
    view.setUint16(0, served, true)
    memory.write(queue.used + used.idx, bytes.subarray(0, 2))
  }
}

/** Whether the driver wants an interrupt; read behind a full barrier after the used index was written. */
export const wantsInterrupt = (memory: GuestMemory, queue: QueueState): boolean =>
  (memory.u16(queue.available + available.flags) & Virtio.VRING_AVAIL_F_NO_INTERRUPT) === 0

const isUsable = (memory: GuestMemory, { available, size, table, used }: QueueState): boolean =>
  size > 0 && size <= QUEUE_SIZE && (size & (size - 1)) === 0 &&
  table % 16 === 0 && memory.has(table, VirtioStruct.vring_desc.size * size) &&
  available % 2 === 0 && memory.has(available, VirtioStruct.vring_avail.size + 2 * size) &&
  used % 4 === 0 && memory.has(used, VirtioStruct.vring_used.size + element.size * size)

interface Buffer {
  readonly address: number
  readonly length: number
}
interface Chain {
  readonly request: ReadonlyArray<Buffer>
  readonly answer: ReadonlyArray<Buffer>
  /** Bytes of `answer`. */
  readonly room: number
}

/** The buffers from descriptor `head` on; undefined where they make no chain within guest memory. */
const readChain = (memory: GuestMemory, { size, table }: QueueState, head: number): Chain | undefined => {
  const request: Array<Buffer> = []
  const answer: Array<Buffer> = []
  let room = 0
  let total = 0
  let index = head
  for (let count = 0; count < size && index < size; count++) {
    const bytes = memory.bytes(table + VirtioStruct.vring_desc.size * index, VirtioStruct.vring_desc.size)
    if (bytes === undefined) return undefined
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    const address = view.getUint32(descriptor.addr + 4, true) * 2 ** 32 + view.getUint32(descriptor.addr, true)
    const length = view.getUint32(descriptor.len, true)
    const flags = view.getUint16(descriptor.flags, true)
    index = view.getUint16(descriptor.next, true)
    total += length
    if (total > MOST_BYTES || (length > 0 && !memory.has(address, length))) return undefined
    if ((flags & Virtio.VRING_DESC_F_INDIRECT) !== 0) return undefined // was not offered
    if ((flags & Virtio.VRING_DESC_F_WRITE) !== 0) {
      room += length
      answer.push({ address, length })
    } else if (answer.length === 0) request.push({ address, length })
    else return undefined // what the device reads is before what it writes
    if ((flags & Virtio.VRING_DESC_F_NEXT) === 0) return { request, answer, room }
  }
  return undefined // a descriptor that is not there, or a circle
}

const gather = (memory: GuestMemory, buffers: ReadonlyArray<Buffer>): Uint8Array => {
  const bytes = new Uint8Array(buffers.reduce((sum, { length }) => sum + length, 0))
  let done = 0
  for (const { address, length } of buffers) {
    memory.copy(address, bytes.subarray(done, done + length))
    done += length
  }
  return bytes
}

const scatter = (memory: GuestMemory, buffers: ReadonlyArray<Buffer>, bytes: Uint8Array): void => {
  let done = 0
  for (const { address, length } of buffers) {
    const part = bytes.subarray(done, done + length)
    if (part.length > 0) memory.write(address, part)
    done += part.length
  }
}
