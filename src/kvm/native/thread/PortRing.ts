import type { Struct } from "../abi/KvmAbi.ts"
import type { Uart } from "./Uart.ts"

/** Where KVM keeps bytes for ports: `struct kvm_coalesced_mmio_ring` in a vCPU's mapping, a page of it. */
export interface PortRingPlace {
  readonly offset: number
  readonly ring: typeof Struct["kvm_coalesced_mmio_ring"]
  readonly entry: typeof Struct["kvm_coalesced_mmio"]
}

/** Hand on to the serial ports what KVM kept for them; false when one has no room, and the rest stays. */
export type PortRing = () => boolean

/**
 * The bytes that a guest sends on serial ports, of which KVM keeps some: it does not leave the guest for each, which takes
 * longer than all else about it. Call it under the serial ports' lock, before anything else is done with the ports: those bytes
 * came first. The kernel adds to the ring, under a lock of its own, and does not look at what is taken from it but for the
 * position.
 *
 * The vCPUs' threads are started from this function's source, so it uses nothing from outside itself.
 * @param mapping a vCPU's
 * @see Documentation/virt/kvm/api.rst, 4.116; virt/kvm/coalesced_mmio.c `coalesced_mmio_write`, v6.12
 */
export const portRingOver = (
  mapping: ArrayBuffer,
  { entry, offset, ring }: PortRingPlace,
  uarts: ReadonlyArray<Uart>
): PortRing => {
  const PAGE = 4096
  const positions = new Int32Array(mapping, offset, ring.size / 4)
  const FIRST = ring.fields.first / 4
  const LAST = ring.fields.last / 4
  const room = Math.floor((PAGE - ring.size) / entry.size)
  const view = new DataView(mapping, offset, PAGE)
  return () => {
    for (let first = positions[FIRST]; first !== Atomics.load(positions, LAST);) {
      const start = ring.size + first * entry.size
      const port = view.getUint32(start + entry.fields.phys_addr, true)
      const uart = uarts.find(({ base }) => base === port)
      if (uart !== undefined && !uart.write(0, view.getUint8(start + entry.fields.data))) return false
      first = (first + 1) % room
      Atomics.store(positions, FIRST, first)
    }
    return true
  }
}
