import type { KvmNative } from "../abi/KvmNative.ts"
import type { Virtio } from "../abi/VirtioAbi.ts"
import type { lockOver } from "./VcpuThread.ts"

/** A virtio device's window in guest-physical memory, and what its registers tell; its state is in `memory`. */
export interface VirtioPlace {
  readonly base: number
  readonly irq: number
  /** `VIRTIO_ID_…` */
  readonly type: number
  /** Feature bits 0 … 31; the transport adds VERSION_1. */
  readonly features: number
  readonly queues: number
  readonly memory: SharedArrayBuffer
}

/** A queue as the driver set it up: nothing of it is checked. Addresses are guest-physical. */
export interface QueueState {
  readonly size: number
  readonly table: number
  readonly available: number
  readonly used: number
  /** How many chains the device has given back, modulo 2^16. */
  readonly served: number
}

export interface VirtioMmio {
  readonly base: number
  /** The guest reads `into.length` bytes at a byte offset in the window. */
  readonly read: (offset: number, into: Uint8Array) => void
  /** The guest writes; true when the device has something to do now. */
  readonly write: (offset: number, bytes: Uint8Array) => boolean
  /**
   * Hold the registers still: the guest's accesses wait, so its reset of the device, too, is before or after. All
   * members below want it.
   */
  readonly locked: <A>(run: () => A) => A
  /** Whether there is something to do since the last time; not before the driver is ready. */
  readonly takeWork: () => boolean
  /** `takeWork` gives true once more. */
  readonly leaveWork: () => void
  /** Undefined while the driver has not made it ready. */
  readonly queue: (index: number) => QueueState | undefined
  readonly setServed: (index: number, served: number) => void
  /** Tell the driver of used buffers. */
  readonly interrupt: () => void
  /** The driver broke the rules: nothing is done for it until it has reset the device. */
  readonly needsReset: () => void
  /** Change the device's configuration, from its first byte on, and tell the driver. */
  readonly configure: (bytes: Uint8Array) => void
}

/** Most descriptors that a queue may have. */
export const QUEUE_SIZE = 128
/** State words: a row for the device, one a queue, then the configuration. */
const ROW_BYTES = 64

export const virtioStateBytes = (queues: number): number => (1 + queues + 1) * ROW_BYTES

/**
 * The registers of a virtio device, shared by the vCPUs' threads, which answer the guest's accesses, and the main
 * thread, which serves the queues.
 *
 * Interrupts go to an input of the I/O APIC that takes edges: whatever is still pending when the driver acknowledges
 * makes a new one.
 *
 * The vCPUs' threads are started from this function's source, so it uses nothing from outside itself.
 * @param vm descriptor to raise interrupts through (KVM_IRQ_LINE is `irqLine`); undefined without interrupt controllers
 * @see Virtual I/O Device (VIRTIO) Version 1.2, 4.2.2 "MMIO Device Register Layout"
 */
export const virtioMmioOver = (
  place: VirtioPlace,
  native: Pick<KvmNative, "ioctl">,
  vm: number | undefined,
  irqLine: number,
  abi: typeof Virtio,
  queueSize: number,
  makeLock: typeof lockOver
): VirtioMmio => {
  const LOCK = 0
  const STATUS = 1
  const FEATURES_SEL = 2
  const DRIVER_SEL = 3
  const DRIVER_FEATURES = 4 // two words
  const QUEUE_SEL = 6
  const INTERRUPT = 7
  const LINE = 8
  const GENERATION = 9
  const WORK = 10
  // words of a queue's row
  const NUM = 0
  const READY = 1
  const TABLE = 2 // each address two words, low one first
  const AVAILABLE = 4
  const USED = 6
  const SERVED = 8

  const row = (index: number) => 16 * (1 + index)
  const configAt = 4 * row(place.queues)
  const words = new Int32Array(place.memory, 0, configAt / 4)
  const config = new Uint8Array(place.memory, configAt)
  const line = new Int32Array([place.irq, 0]) // struct kvm_irq_level
  const lineBytes = new Uint8Array(line.buffer)
  const features = [place.features, 1 << (abi.VIRTIO_F_VERSION_1 - 32)]
  const lock = makeLock(words, LOCK)
  const locked = <A>(run: () => A): A => {
    lock.lock()
    try {
      return run()
    } finally {
      lock.unlock()
    }
  }

  const setLine = (level: number) => {
    if (level === words[LINE] || vm === undefined) return
    words[LINE] = level
    line[1] = level
    native.ioctl(vm, irqLine, lineBytes)
  }
  const raise = (cause: number) => {
    words[INTERRUPT] |= cause
    setLine(1)
  }
  const acknowledge = (causes: number) => {
    words[INTERRUPT] &= ~causes
    setLine(0)
    if (words[INTERRUPT] !== 0) setLine(1)
  }
  const reset = () => {
    words.fill(0, STATUS, LINE)
    words.fill(0, row(0))
    words[WORK] = 0
    setLine(0)
  }
  const setStatus = (value: number) => {
    if (value === 0) return reset()
    const accepted = words[DRIVER_FEATURES + 1] === features[1] && (words[DRIVER_FEATURES] & ~features[0]) === 0
    const broken = words[STATUS] & abi.VIRTIO_CONFIG_S_NEEDS_RESET
    words[STATUS] =
      (value & 0xff & ~abi.VIRTIO_CONFIG_S_NEEDS_RESET & (accepted ? ~0 : ~abi.VIRTIO_CONFIG_S_FEATURES_OK)) |
      broken
  }
  /** The selected queue's row; undefined where the device has no such queue. */
  const selected = (): number | undefined =>
    words[QUEUE_SEL] >= 0 && words[QUEUE_SEL] < place.queues ? row(words[QUEUE_SEL]) : undefined
  const ofQueue = (word: number): number => {
    const at = selected()
    return at === undefined ? 0 : words[at + word]
  }
  const setOfQueue = (word: number, value: number) => {
    const at = selected()
    if (at === undefined) return
    words[at + word] = value
    // a queue begins anew
    if (word === READY) words[at + SERVED] = 0
  }

  const register = (offset: number): number => {
    switch (offset) {
      case abi.VIRTIO_MMIO_MAGIC_VALUE:
        return 0x74726976 // "virt"
      case abi.VIRTIO_MMIO_VERSION:
        return 2
      case abi.VIRTIO_MMIO_DEVICE_ID:
        return place.type
      case abi.VIRTIO_MMIO_VENDOR_ID:
        return 0x5254534b // "KSTR"
      case abi.VIRTIO_MMIO_DEVICE_FEATURES:
        return features[words[FEATURES_SEL]] ?? 0
      case abi.VIRTIO_MMIO_QUEUE_NUM_MAX:
        return selected() === undefined ? 0 : queueSize
      case abi.VIRTIO_MMIO_QUEUE_READY:
        return ofQueue(READY)
      case abi.VIRTIO_MMIO_INTERRUPT_STATUS:
        return words[INTERRUPT]
      case abi.VIRTIO_MMIO_STATUS:
        return words[STATUS]
      case abi.VIRTIO_MMIO_SHM_LEN_LOW: // shared memory of no number is there
      case abi.VIRTIO_MMIO_SHM_LEN_HIGH:
        return -1
      case abi.VIRTIO_MMIO_CONFIG_GENERATION:
        return words[GENERATION]
      default:
        return 0
    }
  }
  const setRegister = (offset: number, value: number): boolean => {
    switch (offset) {
      case abi.VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        words[FEATURES_SEL] = value
        break
      case abi.VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        words[DRIVER_SEL] = value
        break
      case abi.VIRTIO_MMIO_DRIVER_FEATURES:
        if (words[DRIVER_SEL] === 0 || words[DRIVER_SEL] === 1) words[DRIVER_FEATURES + words[DRIVER_SEL]] = value
        break
      case abi.VIRTIO_MMIO_QUEUE_SEL:
        words[QUEUE_SEL] = value
        break
      case abi.VIRTIO_MMIO_QUEUE_NUM:
        setOfQueue(NUM, value)
        break
      case abi.VIRTIO_MMIO_QUEUE_READY:
        setOfQueue(READY, value & 1)
        break
      case abi.VIRTIO_MMIO_QUEUE_NOTIFY: // whichever queue it is: all are looked at
        words[WORK] = 1
        return true
      case abi.VIRTIO_MMIO_INTERRUPT_ACK:
        acknowledge(value)
        break
      case abi.VIRTIO_MMIO_STATUS:
        setStatus(value)
        return words[WORK] !== 0 // of a driver that rang before it said that it is ready
      case abi.VIRTIO_MMIO_QUEUE_DESC_LOW:
        setOfQueue(TABLE, value)
        break
      case abi.VIRTIO_MMIO_QUEUE_DESC_HIGH:
        setOfQueue(TABLE + 1, value)
        break
      case abi.VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        setOfQueue(AVAILABLE, value)
        break
      case abi.VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        setOfQueue(AVAILABLE + 1, value)
        break
      case abi.VIRTIO_MMIO_QUEUE_USED_LOW:
        setOfQueue(USED, value)
        break
      case abi.VIRTIO_MMIO_QUEUE_USED_HIGH:
        setOfQueue(USED + 1, value)
        break
    }
    return false
  }
  const address = (at: number): number => (words[at + 1] >>> 0) * 2 ** 32 + (words[at] >>> 0)
  const isRegister = (offset: number, length: number) => length === 4 && offset % 4 === 0

  return {
    base: place.base,
    read: (offset, into) =>
      locked(() => {
        const inConfig = offset - abi.VIRTIO_MMIO_CONFIG
        const value = inConfig < 0 && isRegister(offset, into.length) ? register(offset) : 0
        for (let i = 0; i < into.length; i++) into[i] = inConfig >= 0 ? config[inConfig + i] ?? 0 : value >>> (8 * i)
      }),
    // no device here has a configuration that the driver may write
    write: (offset, bytes) =>
      locked(() =>
        isRegister(offset, bytes.length) &&
        setRegister(offset, bytes[0] | (bytes[1] << 8) | (bytes[2] << 16) | (bytes[3] << 24))
      ),
    locked,
    takeWork: () => {
      const bits = abi.VIRTIO_CONFIG_S_DRIVER_OK | abi.VIRTIO_CONFIG_S_NEEDS_RESET
      if (words[WORK] === 0 || (words[STATUS] & bits) !== abi.VIRTIO_CONFIG_S_DRIVER_OK) return false
      words[WORK] = 0
      return true
    },
    leaveWork: () => {
      words[WORK] = 1
    },
    queue: (index) => {
      const at = row(index)
      return words[at + READY] === 0 ? undefined : {
        size: words[at + NUM],
        table: address(at + TABLE),
        available: address(at + AVAILABLE),
        used: address(at + USED),
        served: words[at + SERVED]
      }
    },
    setServed: (index, served) => {
      words[row(index) + SERVED] = served
    },
    interrupt: () => raise(abi.VIRTIO_MMIO_INT_VRING),
    needsReset: () => {
      words[STATUS] |= abi.VIRTIO_CONFIG_S_NEEDS_RESET
      raise(abi.VIRTIO_MMIO_INT_CONFIG)
    },
    configure: (bytes) => {
      config.set(bytes)
      words[GENERATION]++
      if ((words[STATUS] & abi.VIRTIO_CONFIG_S_DRIVER_OK) !== 0) raise(abi.VIRTIO_MMIO_INT_CONFIG)
    }
  }
}
