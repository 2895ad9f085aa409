import type { Constant, Exit, Request, Struct } from "../abi/KvmAbi.ts"
import type { KvmNative } from "../abi/KvmNative.ts"
import type { Virtio } from "../abi/VirtioAbi.ts"
import type { PM_PORT, RESET_PORT, S5_TYPE } from "../boot/Acpi.ts"
import type { portRingOver, PortRingPlace } from "./PortRing.ts"
import type { ROW, VcpuEnd, VcpuRequest, VcpuState, VcpuWord, Word } from "./SharedWords.ts"
import type { Uart, uartOver, UartPlace } from "./Uart.ts"
import type { QUEUE_SIZE, VirtioMmio, virtioMmioOver, VirtioPlace } from "./VirtioMmio.ts"

/** What a vCPU's thread is started with: plain data, for it crosses threads. */
export interface VcpuThreadData {
  readonly id: number
  readonly vm: number
  readonly vcpu: number
  readonly runBytes: number
  readonly irqchip: boolean
  readonly words: SharedArrayBuffer
  readonly uarts: ReadonlyArray<UartPlace>
  /** Undefined where KVM keeps no bytes for ports. */
  readonly portRing: PortRingPlace | undefined
  readonly virtio: ReadonlyArray<VirtioPlace>
  /** The modules' constants. */
  readonly abi: {
    readonly Request: typeof Request
    readonly Exit: typeof Exit
    readonly Constant: typeof Constant
    readonly run: typeof Struct["kvm_run"]["fields"]
    readonly Word: typeof Word
    readonly VcpuWord: typeof VcpuWord
    readonly VcpuState: typeof VcpuState
    readonly VcpuRequest: typeof VcpuRequest
    readonly VcpuEnd: typeof VcpuEnd
    readonly ROW: typeof ROW
    readonly PM_PORT: typeof PM_PORT
    readonly RESET_PORT: typeof RESET_PORT
    readonly S5_TYPE: typeof S5_TYPE
    readonly Virtio: typeof Virtio
    readonly QUEUE_SIZE: typeof QUEUE_SIZE
  }
}

/**
 * A lock of the devices: spin-free, because who waits sleeps. A futex as in Drepper, "Futexes Are Tricky", mutex 2.
 * Self-contained, like all that the threads are started from.
 */
export const lockOver = (words: Int32Array, at: number) => ({
  lock: (): void => {
    if (Atomics.compareExchange(words, at, 0, 1) === 0) return
    while (Atomics.exchange(words, at, 2) !== 0) Atomics.wait(words, at, 2)
  },
  unlock: (): void => {
    if (Atomics.exchange(words, at, 0) === 2) Atomics.notify(words, at, 1)
  }
})

/**
 * One vCPU until it ends: KVM_RUN over and over, its exits answered, parked when asked.
 *
 * KVM ends an instruction that left the guest (a port, a device's register) when it is next called, so a vCPU parks
 * where KVM_RUN was broken off and not behind an exit: the frozen registers and memory are those between two
 * instructions. A kick that came in between is still pending and breaks KVM_RUN off at once. The one exception is a
 * byte for a full serial port, which is not sent yet.
 *
 * A vCPU's thread is started from
 * this function's source, so it uses nothing from outside itself: that works the same from source, from the built
 * package and from a bundle, none of which has a file in common that a thread could be started from.
 */
export const runVcpu = (
  native: KvmNative,
  data: VcpuThreadData,
  makeLock: typeof lockOver,
  makeUart: typeof uartOver,
  makePortRing: typeof portRingOver,
  makeVirtio: typeof virtioMmioOver
): void => {
  const { Constant, Exit, ROW, Request, VcpuEnd, VcpuRequest, VcpuState, VcpuWord, Word, run: at } = data.abi
  const { PM_PORT, RESET_PORT, S5_TYPE } = data.abi
  const EINTR = 4
  const EAGAIN = 11
  const words = new Int32Array(data.words)
  const row = (1 + data.id) * ROW
  const parkedAt = new BigInt64Array(data.words, (row + VcpuWord.PARKED_AT) * 4, 1)
  const lock = makeLock(words, Word.LOCK)
  const irqchip = data.irqchip ? data.vm : undefined
  const uarts: ReadonlyArray<Uart> = data.uarts.map((place) => makeUart(place, native, irqchip, Request.KVM_IRQ_LINE))
  const devices: ReadonlyArray<VirtioMmio> = data.virtio.map((place) =>
    makeVirtio(place, native, irqchip, Request.KVM_IRQ_LINE, data.abi.Virtio, data.abi.QUEUE_SIZE, makeLock)
  )
  let ended = false

  const setState = (state: number) => {
    Atomics.store(words, row + VcpuWord.STATE, state)
    Atomics.notify(words, row + VcpuWord.STATE)
  }
  const tellMain = (word: number) => {
    Atomics.add(words, word, 1)
    Atomics.notify(words, word)
  }
  const end = (why: number, detail: number) => {
    if (ended) return // the first reason is the reason
    ended = true
    Atomics.store(words, row + VcpuWord.END, why)
    Atomics.store(words, row + VcpuWord.END_DETAIL, detail)
  }
  /**
   * Wait while asked to; false when it is to stop. The request is read again after saying that it runs: a thread that is
   * just leaving its parking place when the next freeze finds it there must not enter the guest.
   */
  const obey = (): boolean => {
    let request = Atomics.load(words, row + VcpuWord.REQUEST)
    while (request === VcpuRequest.PARK) {
      parkedAt[0] = process.hrtime.bigint()
      setState(VcpuState.PARKED)
      Atomics.wait(words, row + VcpuWord.REQUEST, VcpuRequest.PARK)
      setState(VcpuState.RUNNING)
      request = Atomics.load(words, row + VcpuWord.REQUEST)
    }
    if (request === VcpuRequest.STOP) end(VcpuEnd.STOPPED, 0)
    return !ended
  }

  const mask = native.blockKick()
  const signalMask = new Uint8Array(4 + mask.length) // struct kvm_signal_mask: the length, the kernel's sigset
  new DataView(signalMask.buffer).setUint32(0, mask.length, true)
  signalMask.set(mask, 4)
  const masked = native.ioctl(data.vcpu, Request.KVM_SET_SIGNAL_MASK, signalMask)
  if (masked < 0) throw new Error(`KVM_SET_SIGNAL_MASK of vCPU ${data.id}: errno ${-masked}`)
  const mapping = native.map(data.vcpu, 0, data.runBytes)
  if (typeof mapping === "number") throw new Error(`mmap of vCPU ${data.id}: errno ${-mapping}`)
  const view = new DataView(mapping.bytes)
  const bytes = new Uint8Array(mapping.bytes)
  const sendKept = data.portRing === undefined ? () => true : makePortRing(mapping.bytes, data.portRing, uarts)

  /** Have a serial port do what the guest wants, behind what was sent before; `run` is false while there is no room. */
  const serial = (run: () => boolean) => {
    lock.lock()
    const first = uarts.every((uart) => uart.empty())
    let done = sendKept() && run()
    const tell = first && !uarts.every((uart) => uart.empty()) // of bytes behind the first main knows
    lock.unlock()
    if (tell) tellMain(Word.SENT)
    while (!done && obey()) { // a freeze need not wait until main has made room
      Atomics.wait(words, row + VcpuWord.REQUEST, VcpuRequest.RUN, 1)
      lock.lock()
      done = sendKept() && run()
      lock.unlock()
    }
  }
  const pm1Enable = () => Atomics.load(words, Word.PM1_ENABLE)
  const out = (port: number, value: number, size: number) => {
    const uart = uarts.find(({ base }) => port >= base && port < base + 8)
    if (uart !== undefined) serial(() => uart.write(port - uart.base, value))
    // the keyboard controller's command "pulse the reset line"; the chipset's reset control, which a byte alone reaches:
    // a wider write there is PCI's configuration address
    else if (port === 0x64 && value === 0xfe) end(VcpuEnd.RESET, port)
    else if (port === RESET_PORT && size === 1 && (value & 4) !== 0) end(VcpuEnd.RESET, port)
    // PM1 enable, byte by byte: no event comes, but Linux looks whether what it wrote is there
    else if (port === PM_PORT + 2) Atomics.store(words, Word.PM1_ENABLE, (pm1Enable() & 0xff00) | value)
    else if (port === PM_PORT + 3) Atomics.store(words, Word.PM1_ENABLE, (pm1Enable() & 0xff) | (value << 8))
    // the upper byte of ACPI's PM1 control: SLP_EN, SLP_TYP
    else if (port === PM_PORT + 5 && (value & 0x20) !== 0 && ((value >> 2) & 7) === S5_TYPE) {
      end(VcpuEnd.POWERED_OFF, port)
    }
  }
  const input = (port: number): number => {
    const uart = uarts.find(({ base }) => port >= base && port < base + 8)
    if (uart === undefined) {
      if (port === PM_PORT + 2) return pm1Enable() & 0xff
      if (port === PM_PORT + 3) return pm1Enable() >> 8
      // ACPI's other registers: no event is pending, and the machine is in ACPI mode (SCI_EN); all else is not there
      return port === PM_PORT + 4 ? 1 : port >= PM_PORT && port < PM_PORT + 6 ? 0 : 0xff
    }
    // a kernel's console asks so for each byte: those that KVM keeps meanwhile may stay there
    const status = port === uart.base + 5 ? uart.polledStatus() : undefined
    if (status !== undefined) return status
    let value = 0xff
    serial(() => {
      value = uart.read(port - uart.base)
      return true
    })
    return value
  }
  const io = () => {
    const size = view.getUint8(at["io.size"])
    const port = view.getUint16(at["io.port"], true)
    const count = view.getUint32(at["io.count"], true)
    const start = view.getUint32(at["io.data_offset"], true) // the lower half: it is within the mapping
    const outward = view.getUint8(at["io.direction"]) === Constant.KVM_EXIT_IO_OUT
    for (let i = 0; i < count && !ended; i++) {
      for (let byte = 0; byte < size && !ended; byte++) {
        const position = start + i * size + byte
        if (outward) out(port + byte, bytes[position], size)
        else bytes[position] = input(port + byte)
      }
    }
  }
  const mmio = () => {
    const address = Number(view.getBigUint64(at["mmio.phys_addr"], true))
    const count = view.getUint32(at["mmio.len"], true)
    const moved = bytes.subarray(at["mmio.data"], at["mmio.data"] + count)
    const device = devices.find(({ base }) => address >= base && address < base + 0x1000)
    if (view.getUint8(at["mmio.is_write"]) !== 0) {
      if (device?.write(address - device.base, moved) === true) tellMain(Word.EVENTS)
    } else if (device !== undefined) device.read(address - device.base, moved)
    else moved.fill(0xff) // nothing is there: reads give all ones, writes go nowhere
  }
  const handle = (exit: number) => {
    switch (exit) {
      case Exit.KVM_EXIT_IO:
        return io()
      case Exit.KVM_EXIT_MMIO:
        return mmio()
      case Exit.KVM_EXIT_INTR:
      case Exit.KVM_EXIT_IRQ_WINDOW_OPEN:
        return
      case Exit.KVM_EXIT_HLT:
        return end(VcpuEnd.HALTED, 0)
      case Exit.KVM_EXIT_SHUTDOWN:
        return end(VcpuEnd.TRIPLE_FAULT, 0)
      case Exit.KVM_EXIT_INTERNAL_ERROR:
        return end(VcpuEnd.INTERNAL_ERROR, view.getUint32(at["internal.suberror"], true))
      case Exit.KVM_EXIT_FAIL_ENTRY: {
        const reason = view.getBigUint64(at["fail_entry.hardware_entry_failure_reason"], true)
        return end(VcpuEnd.FAILED_ENTRY, Number(reason & 0x7fffffffn))
      }
      default:
        return end(VcpuEnd.UNKNOWN_EXIT, exit)
    }
  }

  Atomics.store(words, row + VcpuWord.THREAD, native.threadId())
  setState(VcpuState.RUNNING)
  try {
    obey()
    while (!ended) {
      const result = native.ioctl(data.vcpu, Request.KVM_RUN, 0)
      if (result === 0) handle(view.getUint32(at.exit_reason, true))
      else if (result === -EINTR) {
        native.takeKicks()
        obey()
      } // a CPU that waits to be started comes back now and then
      else if (result !== -EAGAIN) end(VcpuEnd.RUN_FAILED, -result)
    }
  } finally {
    native.unmap(mapping)
  }
  // the last word: whoever reads it sends this thread no signal any more
  setState(VcpuState.ENDED)
  tellMain(Word.EVENTS)
}
