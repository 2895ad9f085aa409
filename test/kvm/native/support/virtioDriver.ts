import { Virtio } from "../../../../src/kvm/native/abi/VirtioAbi.ts"
import { FutexLock } from "../../../../src/kvm/native/thread/FutexLock.ts"
import { QUEUE_SIZE, VirtioMmio } from "../../../../src/kvm/native/thread/VirtioMmio.ts"
import { serveDevice, type VirtioDevice, virtioPlaces } from "../../../../src/kvm/native/virtio/VirtioDevice.ts"
import { GuestMemory } from "../../../../src/memory/GuestMemory.ts"

/** A guest's memory in the middle of a buffer whose other bytes tell whether anything else was written. */
export const guardedMemory = (sizes: ReadonlyArray<{ readonly start: number; readonly length: number }>) => {
  const GUARD = 4096
  const pieces = sizes.map(({ length, start }) => {
    const whole = new Uint8Array(length + 2 * GUARD).fill(0xa5)
    const bytes = whole.subarray(GUARD, GUARD + length).fill(0)
    return { whole, start, bytes }
  })
  return {
    memory: new GuestMemory(pieces, { writable: true }),
    guarded: () =>
      pieces.every(({ bytes, whole }) =>
        whole.subarray(0, GUARD).every((byte) => byte === 0xa5) &&
        whole.subarray(GUARD + bytes.length).every((byte) => byte === 0xa5)
      )
  }
}

/** A device's registers as its driver meets them, and what it did with its interrupt's line. */
const plugIn = (device: VirtioDevice, memory: GuestMemory) => {
  const edges: Array<number> = []
  const ioctl = (_fd: number, _request: number, argument: number | Uint8Array) => {
    if (typeof argument !== "number") edges.push(argument[4])
    return 0
  }
  const [place] = virtioPlaces([device])
  const mmio = new VirtioMmio(place, { ioctl }, 3, { irqLine: 0, abi: Virtio, queueSize: QUEUE_SIZE, Lock: FutexLock })
  mmio.locked(() => mmio.configure(device.config))
  const read = (offset: number, length = 4): number => {
    const bytes = new Uint8Array(length)
    mmio.read(offset, bytes)
    return bytes.reduceRight((value, byte) => value * 256 + byte, 0)
  }
  const write = (offset: number, value: number, length = 4): boolean =>
    mmio.write(offset, Uint8Array.from({ length }, (_, index) => Math.floor(value / 256 ** index) & 0xff))
  return { edges, mmio, read, write, serve: () => serveDevice(memory, device, mmio) }
}

export interface Piece {
  readonly bytes: Uint8Array
  readonly writable?: boolean
}

/** A driver that does as the specification asks; everything of it is in guest memory from `base` on. */
export const wellBehaved = (
  device: VirtioDevice,
  memory: GuestMemory,
  base: number,
  { features = device.features, size = 8 } = {}
) => {
  const port = plugIn(device, memory)
  const u16 = (at: number, value: number) => memory.write(at, Uint8Array.of(value, value >> 8))
  const u32 = (at: number, value: number) =>
    memory.write(at, Uint8Array.of(value, value >> 8, value >> 16, value >> 24))
  const status = (value: number) => {
    port.write(Virtio.VIRTIO_MMIO_STATUS, value)
    return port.read(Virtio.VIRTIO_MMIO_STATUS)
  }
  const queues = device.queues.map((_, index) => {
    const table = base + index * 0x4000
    return { table, available: table + 0x1000, used: table + 0x2000, next: 0, seen: 0, buffers: table + 0x3000 }
  })
  const start = () => {
    status(0)
    status(1)
    status(3)
    port.write(Virtio.VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0)
    port.write(Virtio.VIRTIO_MMIO_DRIVER_FEATURES, features)
    port.write(Virtio.VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1)
    port.write(Virtio.VIRTIO_MMIO_DRIVER_FEATURES, 1)
    const accepted = (status(11) & Virtio.VIRTIO_CONFIG_S_FEATURES_OK) !== 0
    queues.forEach((queue, index) => {
      queue.next = 0
      queue.seen = 0
      memory.write(queue.available, new Uint8Array(0x2000))
      port.write(Virtio.VIRTIO_MMIO_QUEUE_SEL, index)
      port.write(Virtio.VIRTIO_MMIO_QUEUE_NUM, size)
      port.write(Virtio.VIRTIO_MMIO_QUEUE_DESC_LOW, queue.table)
      port.write(Virtio.VIRTIO_MMIO_QUEUE_AVAIL_LOW, queue.available)
      port.write(Virtio.VIRTIO_MMIO_QUEUE_USED_LOW, queue.used)
      port.write(Virtio.VIRTIO_MMIO_QUEUE_READY, 1)
    })
    status(15)
    return accepted
  }
  /** Offer one chain, one descriptor behind the other from descriptor `head` on, buffers `gap` bytes apart. */
  const offer = (index: number, pieces: ReadonlyArray<Piece>, head = 0) => {
    const queue = queues[index]
    let at = queue.buffers + head * 0x200
    const places = pieces.map((piece, place) => {
      const entry = queue.table + 16 * (head + place)
      u32(entry, at)
      u32(entry + 4, 0)
      u32(entry + 8, piece.bytes.length)
      const last = place === pieces.length - 1
      u16(entry + 12, (last ? 0 : Virtio.VRING_DESC_F_NEXT) | (piece.writable ? Virtio.VRING_DESC_F_WRITE : 0))
      u16(entry + 14, head + place + 1)
      memory.write(at, piece.bytes)
      at += piece.bytes.length
      return at - piece.bytes.length
    })
    u16(queue.available + 4 + 2 * (queue.next % size), head)
    queue.next = (queue.next + 1) & 0xffff
    u16(queue.available + 2, queue.next)
    return places
  }
  const ring = (index: number) => port.write(Virtio.VIRTIO_MMIO_QUEUE_NOTIFY, index)
  /** What came back since the last time: heads and lengths. */
  const collect = (index: number) => {
    const queue = queues[index]
    const back: Array<{ readonly head: number; readonly length: number }> = []
    while (memory.u16(queue.used + 2) !== queue.seen) {
      const at = queue.used + 4 + 8 * (queue.seen % size)
      back.push({ head: memory.u32(at), length: memory.u32(at + 4) })
      queue.seen = (queue.seen + 1) & 0xffff
    }
    return back
  }
  /** One chain there and back: what was written into its writable pieces. */
  const exchange = (index: number, pieces: ReadonlyArray<Piece>): Uint8Array | undefined => {
    const places = offer(index, pieces)
    if (ring(index)) { while (port.serve()); }
    const [back] = collect(index)
    if (back === undefined) return undefined
    const all = pieces.map(({ bytes, writable }, place) =>
      writable ? memory.bytes(places[place], bytes.length) ?? new Uint8Array(0) : new Uint8Array(0)
    )
    return Uint8Array.from(Buffer.concat(all).subarray(0, back.length))
  }
  return { ...port, queues, start, status, offer, ring, collect, exchange, u16, u32 }
}
