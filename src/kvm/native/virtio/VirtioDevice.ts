import type { GuestMemory } from "../../../memory/GuestMemory.ts"
import type { VirtioMmio, VirtioPlace } from "../thread/VirtioMmio.ts"
import { virtioStateBytes } from "../thread/VirtioMmio.ts"
import { type Serve, serveQueue, wantsInterrupt } from "./VirtioQueue.ts"

/** A device behind virtio-mmio, whichever it is. */
export interface VirtioDevice {
  /** `VIRTIO_ID_…` */
  readonly type: number
  /** Feature bits 0 … 31 that it offers. */
  readonly features: number
  /** The configuration space that the driver reads. */
  readonly config: Uint8Array
  readonly queues: ReadonlyArray<{
    /** Called from the event loop, while no freeze is wanted. */
    readonly serve: Serve
    /** Whether its drivers look at the used ring by themselves, so that interrupts would only be in their way. */
    readonly polled: boolean
  }>
}

/** Between the RAM below 3 GiB and the interrupt controllers. */
const BASE = 0xd0000000
const STRIDE = 0x1000
/** The inputs of the I/O APIC that take edges and at which no device of a PC's board is that this engine has. */
const irqs = [5, 6, 7, 10, 11, 12, 14, 15]

/** Most virtio devices of a machine. */
export const MOST_DEVICES = irqs.length

/** Where the devices are, in their order. */
export const virtioPlaces = (devices: ReadonlyArray<VirtioDevice>): ReadonlyArray<VirtioPlace> =>
  devices.map(({ features, queues, type }, index) => ({
    base: BASE + STRIDE * index,
    irq: irqs[index],
    type,
    features,
    queues: queues.length,
    memory: new SharedArrayBuffer(virtioStateBytes(queues.length))
  }))

/**
 * The words that tell Linux of `count` devices. Kernels without CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES do not mind them.
 * @see drivers/virtio/virtio_mmio.c, v6.12, `vm_cmdline_set`: SIZE@BASE:IRQ
 */
export const virtioWords = (count: number): ReadonlyArray<string> =>
  irqs.slice(0, count).map((irq, index) => `virtio_mmio.device=4K@0x${(BASE + STRIDE * index).toString(16)}:${irq}`)

/** Do what the driver has rung for, one round of it; true when there is more to do. */
export const serveDevice = (memory: GuestMemory, device: VirtioDevice, mmio: VirtioMmio): boolean =>
  mmio.locked(() => {
    if (!mmio.takeWork()) return false
    let busy = false
    for (const [index, { polled, serve }] of device.queues.entries()) {
      const queue = mmio.queue(index)
      if (queue === undefined) continue
      const { served, state } = serveQueue(memory, queue, serve)
      mmio.setServed(index, served)
      if (served !== queue.served && !polled && wantsInterrupt(memory, queue)) mmio.interrupt()
      if (state === "broken") {
        mmio.needsReset()
        return false
      }
      if (state === "busy") busy = true
    }
    if (busy) mmio.leaveWork()
    return busy
  })
