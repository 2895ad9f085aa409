import type { Struct } from "../abi/KvmAbi.ts"
import type { Uart } from "./Uart.ts"

/** Where KVM keeps bytes for ports: `struct kvm_coalesced_mmio_ring` in a vCPU's mapping, a page of it. */
export interface PortRingPlace {
  readonly offset: number
  readonly ring: typeof Struct["kvm_coalesced_mmio_ring"]
  readonly entry: typeof Struct["kvm_coalesced_mmio"]
}

/**
 * The bytes that a guest sends on serial ports, of which KVM keeps some: it does not leave the guest for each, which takes
 * longer than all else about it. The kernel adds to the ring, under a lock of its own, and looks at nothing that is taken
 * from it but the position.
 *
 * Sent to vCPU threads as source text: it uses nothing from outside itself.
 * @see Documentation/virt/kvm/api.rst, 4.116; virt/kvm/coalesced_mmio.c `coalesced_mmio_write`, v6.12
 */
export class PortRing {
  static readonly #PAGE = 4096
  readonly #place: PortRingPlace
  readonly #uarts: ReadonlyArray<Uart>
  readonly #positions: Int32Array
  readonly #view: DataView
  /** Entries. */
  readonly #room: number

  /** @param mapping a vCPU's */
  constructor(mapping: ArrayBuffer, place: PortRingPlace, uarts: ReadonlyArray<Uart>) {
    const { entry, offset, ring } = place
    this.#place = place
    this.#uarts = uarts
    this.#positions = new Int32Array(mapping, offset, ring.size / 4)
    this.#view = new DataView(mapping, offset, PortRing.#PAGE)
    this.#room = Math.floor((PortRing.#PAGE - ring.size) / entry.size)
  }

  /**
   * Hand the kept bytes on to the serial ports; false when one has no room, and the rest stays. Call it under the serial
   * ports' lock, before anything else is done with the ports: those bytes came first.
   */
  send(): boolean {
    const { entry, ring } = this.#place
    const [FIRST, LAST] = [ring.fields.first / 4, ring.fields.last / 4]
    for (let first = this.#positions[FIRST]; first !== Atomics.load(this.#positions, LAST);) {
      const start = ring.size + first * entry.size
      const port = this.#view.getUint32(start + entry.fields.phys_addr, true)
      const uart = this.#uarts.find(({ base }) => base === port)
      if (uart !== undefined && !uart.write(0, this.#view.getUint8(start + entry.fields.data))) return false
      first = (first + 1) % this.#room
      Atomics.store(this.#positions, FIRST, first)
    }
    return true
  }
}
