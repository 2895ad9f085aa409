import type { KvmNative } from "../abi/KvmNative.ts"

/** Where a 16550 sits; its two rings and its registers are in `memory`. */
export interface UartPlace {
  readonly base: number
  readonly irq: number
  readonly memory: SharedArrayBuffer
}

/** COM1 and COM2 of a PC. */
export const uartPlaces = [{ base: 0x3f8, irq: 4 }, { base: 0x2f8, irq: 3 }] as const

export interface Uart {
  readonly base: number
  /** The guest reads register 0 … 7. */
  readonly read: (register: number) => number
  /**
   * The line status (register 5) while the guest sends by asking for it over and over; undefined when it has to be read as
   * any register, because what the guest has sent before may change it. Needs no lock.
   */
  readonly polledStatus: () => number | undefined
  /** The guest writes a register; false when what it sent has to wait for `take`. */
  readonly write: (register: number, value: number) => boolean
  /** Bytes for the guest; how many of them there was room for. */
  readonly receive: (bytes: Uint8Array) => number
  /** Whether `take` would give nothing. */
  readonly empty: () => boolean
  /** What the guest sent since the last time. */
  readonly take: () => Uint8Array
}

/**
 * A 16550A without baud rates: what the guest sends is out at once, so the transmitter is always ready and says so by
 * interrupt each time that it is asked to. Its state is shared by threads: call everything under the serial ports' lock.
 *
 * The vCPUs' threads are started from this function's source, so it uses nothing from outside itself.
 * @param vm descriptor to raise interrupts through (KVM_IRQ_LINE is `irqLine`); undefined without interrupt controllers
 * @see National Semiconductor PC16550D data sheet, "Registers"; include/uapi/linux/serial_reg.h, v6.12
 */
export const uartOver = (
  { base, irq, memory }: UartPlace,
  native: Pick<KvmNative, "ioctl">,
  vm: number | undefined,
  irqLine: number
): Uart => {
  // words of state, then the two rings, whose positions count on and wrap at 2^32
  const IER = 0
  const LCR = 1
  const MCR = 2
  const SCRATCH = 3
  const DIVISOR = 4
  const FIFO = 5
  const SENT = 6 // the transmitter's interrupt is due
  const LINE = 7
  const TX_HEAD = 8
  const TX_TAIL = 9
  const RX_HEAD = 10
  const RX_TAIL = 11
  const HEADER = 64
  const RING = (memory.byteLength - HEADER) / 2

  const words = new Int32Array(memory, 0, HEADER / 4)
  const tx = new Uint8Array(memory, HEADER, RING)
  const rx = new Uint8Array(memory, HEADER + RING, RING)
  const used = (head: number, tail: number) => (words[head] - words[tail]) >>> 0
  const place = (position: number) => (words[position] >>> 0) % RING
  const level = new Int32Array([irq, 0]) // struct kvm_irq_level
  const levelBytes = new Uint8Array(level.buffer)

  const received = () => used(RX_HEAD, RX_TAIL) > 0
  const pending = () => (words[IER] & 1) !== 0 && received() ? 4 : (words[IER] & 2) !== 0 && words[SENT] === 1 ? 2 : 1
  const signal = () => {
    const line = pending() === 1 ? 0 : 1
    if (line === words[LINE] || vm === undefined) return
    words[LINE] = line
    level[1] = line
    native.ioctl(vm, irqLine, levelBytes)
  }
  const receive = (bytes: Uint8Array): number => {
    const count = Math.min(bytes.length, RING - used(RX_HEAD, RX_TAIL))
    for (let i = 0; i < count; i++) {
      rx[place(RX_HEAD)] = bytes[i]
      words[RX_HEAD]++
    }
    signal()
    return count
  }
  /** Loopback wires the modem control outputs to the status inputs: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD. */
  const modemStatus = () => {
    const mcr = words[MCR]
    if ((mcr & 0x10) === 0) return 0xb0 // DCD, DSR, CTS
    return ((mcr & 2) << 3) | ((mcr & 1) << 5) | ((mcr & 4) << 4) | ((mcr & 8) << 4)
  }
  const lineStatus = () => 0x60 | (received() ? 1 : 0) // transmitter empty and ready; data ready
  const polledStatus = () => (words[IER] & 2) === 0 && (words[MCR] & 0x10) === 0 ? lineStatus() : undefined
  const read = (register: number): number => {
    const latch = (words[LCR] & 0x80) !== 0
    switch (register) {
      case 0: {
        if (latch) return words[DIVISOR] & 0xff
        if (!received()) return 0
        const byte = rx[place(RX_TAIL)]
        words[RX_TAIL]++
        signal()
        return byte
      }
      case 1:
        return latch ? words[DIVISOR] >>> 8 : words[IER]
      case 2: {
        const cause = pending()
        if (cause === 2) {
          words[SENT] = 0
          signal()
        }
        return cause | (words[FIFO] === 1 ? 0xc0 : 0)
      }
      case 3:
        return words[LCR]
      case 4:
        return words[MCR]
      case 5:
        return lineStatus()
      case 6:
        return modemStatus()
      default:
        return words[SCRATCH]
    }
  }
  const write = (register: number, value: number): boolean => {
    const latch = (words[LCR] & 0x80) !== 0
    switch (register) {
      case 0:
        if (latch) {
          words[DIVISOR] = (words[DIVISOR] & 0xff00) | value
        } else if ((words[MCR] & 0x10) !== 0) {
          receive(Uint8Array.of(value))
        } else {
          if (used(TX_HEAD, TX_TAIL) === RING) return false
          tx[place(TX_HEAD)] = value
          words[TX_HEAD]++
          words[SENT] = 1
          signal()
        }
        break
      case 1:
        if (latch) {
          words[DIVISOR] = (words[DIVISOR] & 0xff) | (value << 8)
        } else {
          if ((value & 2) !== 0 && (words[IER] & 2) === 0) words[SENT] = 1
          words[IER] = value & 0x0f
          signal()
        }
        break
      case 2:
        words[FIFO] = value & 1
        if ((value & 2) !== 0) words[RX_TAIL] = words[RX_HEAD]
        signal()
        break
      case 3:
        words[LCR] = value
        break
      case 4:
        words[MCR] = value & 0x1f
        break
      case 7:
        words[SCRATCH] = value
        break
    }
    return true
  }
  const empty = () => words[TX_HEAD] === words[TX_TAIL]
  const take = (): Uint8Array => {
    const bytes = new Uint8Array(used(TX_HEAD, TX_TAIL))
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = tx[place(TX_TAIL)]
      words[TX_TAIL]++
    }
    return bytes
  }
  return { base, read, polledStatus, write, receive, empty, take }
}
