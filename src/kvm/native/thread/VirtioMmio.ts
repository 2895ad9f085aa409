import type { KvmNative } from "../abi/KvmNative.ts"
import type { Virtio } from "../abi/VirtioAbi.ts"
import type { FutexLock } from "./FutexLock.ts"

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

/** Most descriptors that a queue may have. */
export const QUEUE_SIZE = 128
/** State words: a row for the device, one a queue, then the configuration. */
const ROW_BYTES = 64

export const virtioStateBytes = (queues: number): number => (1 + queues + 1) * ROW_BYTES

/** Numbers and a class that the registers use, handed in because the class is sent to threads without its module. */
export interface VirtioMmioParts {
  /** The request KVM_IRQ_LINE. */
  readonly irqLine: number
  readonly abi: typeof Virtio
  readonly queueSize: number
  readonly Lock: typeof FutexLock
}

/**
 * The registers of a virtio device, shared by the vCPUs' threads, which answer the guest's accesses, and the main
 * thread, which serves the queues.
 *
 * Interrupts go to an input of the I/O APIC that takes edges: whatever is still pending when the driver acknowledges
 * makes a new one.
 *
 * Sent to vCPU threads as source text: it uses nothing from outside itself.
 * @see Virtual I/O Device (VIRTIO) Version 1.2, 4.2.2 "MMIO Device Register Layout"
 */
export class VirtioMmio {
  // words of the device's row
  static readonly #LOCK = 0
  static readonly #STATUS = 1
  static readonly #FEATURES_SEL = 2
  static readonly #DRIVER_SEL = 3
  static readonly #DRIVER_FEATURES = 4 // two words
  static readonly #QUEUE_SEL = 6
  static readonly #INTERRUPT = 7
  static readonly #LINE = 8
  static readonly #GENERATION = 9
  static readonly #WORK = 10
  // words of a queue's row
  static readonly #NUM = 0
  static readonly #READY = 1
  static readonly #TABLE = 2 // each address two words, low one first
  static readonly #AVAILABLE = 4
  static readonly #USED = 6
  static readonly #SERVED = 8

  readonly base: number
  readonly #place: VirtioPlace
  readonly #native: Pick<KvmNative, "ioctl">
  readonly #vm: number | undefined
  readonly #parts: VirtioMmioParts
  readonly #words: Int32Array
  readonly #config: Uint8Array
  /** `struct kvm_irq_level` */
  readonly #line: Int32Array
  readonly #lineBytes: Uint8Array
  /** Both words of feature bits that the device offers. */
  readonly #features: ReadonlyArray<number>
  readonly #lock: FutexLock

  /** @param vm descriptor to raise interrupts through; undefined without interrupt controllers */
  constructor(place: VirtioPlace, native: Pick<KvmNative, "ioctl">, vm: number | undefined, parts: VirtioMmioParts) {
    const configAt = 4 * VirtioMmio.#row(place.queues)
    this.base = place.base
    this.#place = place
    this.#native = native
    this.#vm = vm
    this.#parts = parts
    this.#words = new Int32Array(place.memory, 0, configAt / 4)
    this.#config = new Uint8Array(place.memory, configAt)
    this.#line = new Int32Array([place.irq, 0])
    this.#lineBytes = new Uint8Array(this.#line.buffer)
    this.#features = [place.features, 1 << (parts.abi.VIRTIO_F_VERSION_1 - 32)]
    this.#lock = new parts.Lock(this.#words, VirtioMmio.#LOCK)
  }

  /** The guest reads `into.length` bytes at a byte offset in the window. */
  read(offset: number, into: Uint8Array): void {
    this.locked(() => {
      const inConfig = offset - this.#parts.abi.VIRTIO_MMIO_CONFIG
      const value = inConfig < 0 && VirtioMmio.#isRegister(offset, into.length) ? this.#register(offset) : 0
      for (let i = 0; i < into.length; i++) {
        into[i] = inConfig >= 0 ? this.#config[inConfig + i] ?? 0 : value >>> (8 * i)
      }
    })
  }

  /** The guest writes; true when the device has something to do now. No device here has a configuration to be written. */
  write(offset: number, bytes: Uint8Array): boolean {
    return this.locked(() =>
      VirtioMmio.#isRegister(offset, bytes.length) &&
      this.#setRegister(offset, bytes[0] | (bytes[1] << 8) | (bytes[2] << 16) | (bytes[3] << 24))
    )
  }

  /**
   * Hold the registers still: the guest's accesses wait, so its reset of the device, too, is before or after. All
   * members below need it.
   */
  locked<A>(run: () => A): A {
    return this.#lock.hold(run)
  }

  /** Whether there is something to do since the last time; not before the driver is ready. */
  takeWork(): boolean {
    const { abi } = this.#parts
    const words = this.#words
    const bits = abi.VIRTIO_CONFIG_S_DRIVER_OK | abi.VIRTIO_CONFIG_S_NEEDS_RESET
    if (words[VirtioMmio.#WORK] === 0 || (words[VirtioMmio.#STATUS] & bits) !== abi.VIRTIO_CONFIG_S_DRIVER_OK) {
      return false
    }
    words[VirtioMmio.#WORK] = 0
    return true
  }

  /** `takeWork` gives true once more. */
  leaveWork(): void {
    this.#words[VirtioMmio.#WORK] = 1
  }

  /** Undefined while the driver has not made it ready. */
  queue(index: number): QueueState | undefined {
    const at = VirtioMmio.#row(index)
    return this.#words[at + VirtioMmio.#READY] === 0 ? undefined : {
      size: this.#words[at + VirtioMmio.#NUM],
      table: this.#address(at + VirtioMmio.#TABLE),
      available: this.#address(at + VirtioMmio.#AVAILABLE),
      used: this.#address(at + VirtioMmio.#USED),
      served: this.#words[at + VirtioMmio.#SERVED]
    }
  }

  setServed(index: number, served: number): void {
    this.#words[VirtioMmio.#row(index) + VirtioMmio.#SERVED] = served
  }

  /** Tell the driver of used buffers. */
  interrupt(): void {
    this.#raise(this.#parts.abi.VIRTIO_MMIO_INT_VRING)
  }

  /** The driver broke the rules: nothing is done for it until it has reset the device. */
  needsReset(): void {
    this.#words[VirtioMmio.#STATUS] |= this.#parts.abi.VIRTIO_CONFIG_S_NEEDS_RESET
    this.#raise(this.#parts.abi.VIRTIO_MMIO_INT_CONFIG)
  }

  /** Change the device's configuration, from its first byte on, and tell the driver. */
  configure(bytes: Uint8Array): void {
    const { abi } = this.#parts
    this.#config.set(bytes)
    this.#words[VirtioMmio.#GENERATION]++
    if ((this.#words[VirtioMmio.#STATUS] & abi.VIRTIO_CONFIG_S_DRIVER_OK) !== 0) {
      this.#raise(abi.VIRTIO_MMIO_INT_CONFIG)
    }
  }

  static #row(index: number): number {
    return 16 * (1 + index)
  }

  static #isRegister(offset: number, length: number): boolean {
    return length === 4 && offset % 4 === 0
  }

  #address(at: number): number {
    return (this.#words[at + 1] >>> 0) * 2 ** 32 + (this.#words[at] >>> 0)
  }

  #setLine(level: number): void {
    if (level === this.#words[VirtioMmio.#LINE] || this.#vm === undefined) return
    this.#words[VirtioMmio.#LINE] = level
    this.#line[1] = level
    this.#native.ioctl(this.#vm, this.#parts.irqLine, this.#lineBytes)
  }

  #raise(cause: number): void {
    this.#words[VirtioMmio.#INTERRUPT] |= cause
    this.#setLine(1)
  }

  #acknowledge(causes: number): void {
    this.#words[VirtioMmio.#INTERRUPT] &= ~causes
    this.#setLine(0)
    if (this.#words[VirtioMmio.#INTERRUPT] !== 0) this.#setLine(1)
  }

  #reset(): void {
    this.#words.fill(0, VirtioMmio.#STATUS, VirtioMmio.#LINE)
    this.#words.fill(0, VirtioMmio.#row(0))
    this.#words[VirtioMmio.#WORK] = 0
    this.#setLine(0)
  }

  #setStatus(value: number): void {
    if (value === 0) return this.#reset()
    const { abi } = this.#parts
    const words = this.#words
    const [low, high] = [words[VirtioMmio.#DRIVER_FEATURES], words[VirtioMmio.#DRIVER_FEATURES + 1]]
    const accepted = high === this.#features[1] && (low & ~this.#features[0]) === 0
    const broken = words[VirtioMmio.#STATUS] & abi.VIRTIO_CONFIG_S_NEEDS_RESET
    const settable = 0xff & ~abi.VIRTIO_CONFIG_S_NEEDS_RESET & (accepted ? ~0 : ~abi.VIRTIO_CONFIG_S_FEATURES_OK)
    words[VirtioMmio.#STATUS] = (value & settable) | broken
  }

  /** The selected queue's row; undefined where the device has no such queue. */
  #selected(): number | undefined {
    const index = this.#words[VirtioMmio.#QUEUE_SEL]
    return index >= 0 && index < this.#place.queues ? VirtioMmio.#row(index) : undefined
  }

  #ofQueue(word: number): number {
    const at = this.#selected()
    return at === undefined ? 0 : this.#words[at + word]
  }

  #setOfQueue(word: number, value: number): void {
    const at = this.#selected()
    if (at === undefined) return
    this.#words[at + word] = value
    // a queue starts over
    if (word === VirtioMmio.#READY) this.#words[at + VirtioMmio.#SERVED] = 0
  }

  #register(offset: number): number {
    const { abi, queueSize } = this.#parts
    const words = this.#words
    switch (offset) {
      case abi.VIRTIO_MMIO_MAGIC_VALUE:
        return 0x74726976 // "virt"
      case abi.VIRTIO_MMIO_VERSION:
        return 2
      case abi.VIRTIO_MMIO_DEVICE_ID:
        return this.#place.type
      case abi.VIRTIO_MMIO_VENDOR_ID:
        return 0x5254534b // "KSTR"
      case abi.VIRTIO_MMIO_DEVICE_FEATURES:
        return this.#features[words[VirtioMmio.#FEATURES_SEL]] ?? 0
      case abi.VIRTIO_MMIO_QUEUE_NUM_MAX:
        return this.#selected() === undefined ? 0 : queueSize
      case abi.VIRTIO_MMIO_QUEUE_READY:
        return this.#ofQueue(VirtioMmio.#READY)
      case abi.VIRTIO_MMIO_INTERRUPT_STATUS:
        return words[VirtioMmio.#INTERRUPT]
      case abi.VIRTIO_MMIO_STATUS:
        return words[VirtioMmio.#STATUS]
      case abi.VIRTIO_MMIO_SHM_LEN_LOW: // shared memory of no number is there
      case abi.VIRTIO_MMIO_SHM_LEN_HIGH:
        return -1
      case abi.VIRTIO_MMIO_CONFIG_GENERATION:
        return words[VirtioMmio.#GENERATION]
      default:
        return 0
    }
  }

  #setRegister(offset: number, value: number): boolean {
    const { abi } = this.#parts
    const words = this.#words
    switch (offset) {
      case abi.VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        words[VirtioMmio.#FEATURES_SEL] = value
        break
      case abi.VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        words[VirtioMmio.#DRIVER_SEL] = value
        break
      case abi.VIRTIO_MMIO_DRIVER_FEATURES: {
        const which = words[VirtioMmio.#DRIVER_SEL]
        if (which === 0 || which === 1) words[VirtioMmio.#DRIVER_FEATURES + which] = value
        break
      }
      case abi.VIRTIO_MMIO_QUEUE_SEL:
        words[VirtioMmio.#QUEUE_SEL] = value
        break
      case abi.VIRTIO_MMIO_QUEUE_NUM:
        this.#setOfQueue(VirtioMmio.#NUM, value)
        break
      case abi.VIRTIO_MMIO_QUEUE_READY:
        this.#setOfQueue(VirtioMmio.#READY, value & 1)
        break
      case abi.VIRTIO_MMIO_QUEUE_NOTIFY: // whichever queue it is: all are looked at
        words[VirtioMmio.#WORK] = 1
        return true
      case abi.VIRTIO_MMIO_INTERRUPT_ACK:
        this.#acknowledge(value)
        break
      case abi.VIRTIO_MMIO_STATUS:
        this.#setStatus(value)
        return words[VirtioMmio.#WORK] !== 0 // of a driver that rang before it said that it is ready
      default:
        this.#setAddress(offset, value)
    }
    return false
  }

  /** Half of an address of the selected queue's parts; any other register is read-only. */
  #setAddress(offset: number, value: number): void {
    const { abi } = this.#parts
    switch (offset) {
      case abi.VIRTIO_MMIO_QUEUE_DESC_LOW:
        return this.#setOfQueue(VirtioMmio.#TABLE, value)
      case abi.VIRTIO_MMIO_QUEUE_DESC_HIGH:
        return this.#setOfQueue(VirtioMmio.#TABLE + 1, value)
      case abi.VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        return this.#setOfQueue(VirtioMmio.#AVAILABLE, value)
      case abi.VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        return this.#setOfQueue(VirtioMmio.#AVAILABLE + 1, value)
      case abi.VIRTIO_MMIO_QUEUE_USED_LOW:
        return this.#setOfQueue(VirtioMmio.#USED, value)
      case abi.VIRTIO_MMIO_QUEUE_USED_HIGH:
        return this.#setOfQueue(VirtioMmio.#USED + 1, value)
    }
  }
}
