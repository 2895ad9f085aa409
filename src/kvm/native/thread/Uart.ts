import type { KvmNative } from "../abi/KvmNative.ts"

/** Where a 16550 sits; its two rings and its registers are in `memory`. */
export interface UartPlace {
  readonly base: number
  readonly irq: number
  readonly memory: SharedArrayBuffer
}

/** COM1 and COM2 of a PC. */
export const uartPlaces = [{ base: 0x3f8, irq: 4 }, { base: 0x2f8, irq: 3 }] as const

/**
 * A 16550A without baud rates: what the guest sends is out at once, so the transmitter is always ready and says so by
 * interrupt each time that it is asked to. Its state is shared by threads: call everything under the serial ports' lock.
 *
 * Sent to vCPU threads as source text: it uses nothing from outside itself.
 * @see National Semiconductor PC16550D data sheet, "Registers"; include/uapi/linux/serial_reg.h, v6.12
 */
export class Uart {
  // words of state, then the two rings, whose positions count on and wrap at 2^32
  static readonly #IER = 0
  static readonly #LCR = 1
  static readonly #MCR = 2
  static readonly #SCRATCH = 3
  static readonly #DIVISOR = 4
  static readonly #FIFO = 5
  /** The transmitter's interrupt is due. */
  static readonly #SENT = 6
  static readonly #LINE = 7
  static readonly #TX_HEAD = 8
  static readonly #TX_TAIL = 9
  static readonly #RX_HEAD = 10
  static readonly #RX_TAIL = 11
  /** Bytes before the rings. */
  static readonly HEADER = 64

  readonly base: number
  readonly #native: Pick<KvmNative, "ioctl">
  readonly #vm: number | undefined
  readonly #irqLine: number
  readonly #words: Int32Array
  readonly #tx: Uint8Array
  readonly #rx: Uint8Array
  /** `struct kvm_irq_level` */
  readonly #level: Int32Array
  readonly #levelBytes: Uint8Array

  /** @param vm descriptor to raise interrupts through (KVM_IRQ_LINE is `irqLine`); undefined without interrupt controllers */
  constructor(place: UartPlace, native: Pick<KvmNative, "ioctl">, vm: number | undefined, irqLine: number) {
    const { base, irq, memory } = place
    const ring = (memory.byteLength - Uart.HEADER) / 2
    this.base = base
    this.#native = native
    this.#vm = vm
    this.#irqLine = irqLine
    this.#words = new Int32Array(memory, 0, Uart.HEADER / 4)
    this.#tx = new Uint8Array(memory, Uart.HEADER, ring)
    this.#rx = new Uint8Array(memory, Uart.HEADER + ring, ring)
    this.#level = new Int32Array([irq, 0])
    this.#levelBytes = new Uint8Array(this.#level.buffer)
  }

  /** The guest reads register 0 … 7. */
  read(register: number): number {
    const words = this.#words
    const latch = (words[Uart.#LCR] & 0x80) !== 0
    switch (register) {
      case 0:
        return latch ? words[Uart.#DIVISOR] & 0xff : this.#readByte()
      case 1:
        return latch ? words[Uart.#DIVISOR] >>> 8 : words[Uart.#IER]
      case 2: {
        const cause = this.#pending()
        if (cause === 2) {
          words[Uart.#SENT] = 0
          this.#signal()
        }
        return cause | (words[Uart.#FIFO] === 1 ? 0xc0 : 0)
      }
      case 3:
        return words[Uart.#LCR]
      case 4:
        return words[Uart.#MCR]
      case 5:
        return this.#lineStatus()
      case 6:
        return this.#modemStatus()
      default:
        return words[Uart.#SCRATCH]
    }
  }

  /**
   * The line status (register 5) while the guest sends by asking for it over and over; undefined when it has to be read as
   * any register, because what the guest has sent before may change it. Needs no lock.
   */
  polledStatus(): number | undefined {
    const words = this.#words
    return (words[Uart.#IER] & 2) === 0 && (words[Uart.#MCR] & 0x10) === 0 ? this.#lineStatus() : undefined
  }

  /** The guest writes a register; false when what it sent has to wait for `take`. */
  write(register: number, value: number): boolean {
    const words = this.#words
    const latch = (words[Uart.#LCR] & 0x80) !== 0
    switch (register) {
      case 0:
        if (!latch) return this.#writeByte(value)
        words[Uart.#DIVISOR] = (words[Uart.#DIVISOR] & 0xff00) | value
        break
      case 1:
        if (latch) {
          words[Uart.#DIVISOR] = (words[Uart.#DIVISOR] & 0xff) | (value << 8)
        } else {
          if ((value & 2) !== 0 && (words[Uart.#IER] & 2) === 0) words[Uart.#SENT] = 1
          words[Uart.#IER] = value & 0x0f
          this.#signal()
        }
        break
      case 2:
        words[Uart.#FIFO] = value & 1
        if ((value & 2) !== 0) words[Uart.#RX_TAIL] = words[Uart.#RX_HEAD]
        this.#signal()
        break
      case 3:
        words[Uart.#LCR] = value
        break
      case 4:
        words[Uart.#MCR] = value & 0x1f
        break
      case 7:
        words[Uart.#SCRATCH] = value
        break
    }
    return true
  }

  /** Bytes for the guest; how many of them there was room for. */
  receive(bytes: Uint8Array): number {
    const rx = this.#rx
    const count = Math.min(bytes.length, rx.length - this.#used(Uart.#RX_HEAD, Uart.#RX_TAIL))
    for (let i = 0; i < count; i++) {
      rx[this.#place(Uart.#RX_HEAD)] = bytes[i]
      this.#words[Uart.#RX_HEAD]++
    }
    this.#signal()
    return count
  }

  /** Whether `take` would give nothing. */
  empty(): boolean {
    return this.#words[Uart.#TX_HEAD] === this.#words[Uart.#TX_TAIL]
  }

  /** The guest's output since the last call. */
  take(): Uint8Array {
    const bytes = new Uint8Array(this.#used(Uart.#TX_HEAD, Uart.#TX_TAIL))
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = this.#tx[this.#place(Uart.#TX_TAIL)]
      this.#words[Uart.#TX_TAIL]++
    }
    return bytes
  }

  #readByte(): number {
    if (!this.#received()) return 0
    const byte = this.#rx[this.#place(Uart.#RX_TAIL)]
    this.#words[Uart.#RX_TAIL]++
    this.#signal()
    return byte
  }

  #writeByte(value: number): boolean {
    const words = this.#words
    if ((words[Uart.#MCR] & 0x10) !== 0) {
      this.receive(Uint8Array.of(value))
      return true
    }
    if (this.#used(Uart.#TX_HEAD, Uart.#TX_TAIL) === this.#tx.length) return false
    this.#tx[this.#place(Uart.#TX_HEAD)] = value
    words[Uart.#TX_HEAD]++
    words[Uart.#SENT] = 1
    this.#signal()
    return true
  }

  #used(head: number, tail: number): number {
    return (this.#words[head] - this.#words[tail]) >>> 0
  }

  #place(position: number): number {
    return (this.#words[position] >>> 0) % this.#tx.length
  }

  #received(): boolean {
    return this.#words[Uart.#RX_HEAD] !== this.#words[Uart.#RX_TAIL]
  }

  /** The cause of an interrupt as register 2 has it: 4 data, 2 the transmitter, 1 none. */
  #pending(): number {
    const words = this.#words
    if ((words[Uart.#IER] & 1) !== 0 && this.#received()) return 4
    return (words[Uart.#IER] & 2) !== 0 && words[Uart.#SENT] === 1 ? 2 : 1
  }

  #signal(): void {
    const line = this.#pending() === 1 ? 0 : 1
    if (line === this.#words[Uart.#LINE] || this.#vm === undefined) return
    this.#words[Uart.#LINE] = line
    this.#level[1] = line
    this.#native.ioctl(this.#vm, this.#irqLine, this.#levelBytes)
  }

  /** Transmitter empty and ready; data ready. */
  #lineStatus(): number {
    return 0x60 | (this.#received() ? 1 : 0)
  }

  /** Loopback wires the modem control outputs to the status inputs: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD. */
  #modemStatus(): number {
    const mcr = this.#words[Uart.#MCR]
    if ((mcr & 0x10) === 0) return 0xb0 // DCD, DSR, CTS
    return ((mcr & 2) << 3) | ((mcr & 1) << 5) | ((mcr & 4) << 4) | ((mcr & 8) << 4)
  }
}
