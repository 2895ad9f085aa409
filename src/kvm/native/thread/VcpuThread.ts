import type { PM_PORT, RESET_PORT, S5_TYPE } from "../abi/AcpiPorts.ts"
import type { Constant, Exit, Request, Struct } from "../abi/KvmAbi.ts"
import type { KvmNative } from "../abi/KvmNative.ts"
import type { Virtio } from "../abi/VirtioAbi.ts"
import type { FutexLock } from "./FutexLock.ts"
import type { PortRing, PortRingPlace } from "./PortRing.ts"
import type { ROW, VcpuEnd, VcpuRequest, VcpuState, VcpuWord, Word } from "./SharedWords.ts"
import type { Uart, UartPlace } from "./Uart.ts"
import type { QUEUE_SIZE, VirtioMmio, VirtioPlace } from "./VirtioMmio.ts"

/** Arguments of a vCPU thread; plain data, because it is cloned to another thread. */
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
    readonly Struct: Pick<typeof Struct, "kvm_debugregs" | "kvm_vcpu_events">
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

/** The classes that a vCPU thread uses: its program has their source text. */
export interface VcpuThreadParts {
  readonly FutexLock: typeof FutexLock
  readonly Uart: typeof Uart
  readonly PortRing: typeof PortRing
  readonly VirtioMmio: typeof VirtioMmio
}

/**
 * One vCPU until it ends: KVM_RUN over and over, its exits answered, parked when asked.
 *
 * KVM ends an instruction that left the guest (a port, a device's register) when it is next called, so a vCPU parks
 * where KVM_RUN was broken off and not behind an exit: the frozen registers and memory are those between two
 * instructions. A kick that came in between is still pending and breaks KVM_RUN off at once. The one exception is a
 * byte for a full serial port, which is not sent yet.
 *
 * The thread runs this class's *source text*, so it must not reference anything outside itself: that works the same from
 * source, from the built package and from a bundle, none of which has a file in common that a thread could be started
 * from. Lint allows only `import type` in this folder.
 */
export class VcpuThread {
  static readonly #EINTR = 4
  static readonly #EAGAIN = 11
  /** DR6.B0 to B3 */
  static readonly #MATCHED = 0xfn
  static readonly #DB_VECTOR = 1

  readonly #native: KvmNative
  readonly #data: VcpuThreadData
  readonly #words: Int32Array
  /** This vCPU's first word. */
  readonly #row: number
  /** Serializes the serial ports. */
  readonly #lock: FutexLock
  readonly #uarts: ReadonlyArray<Uart>
  readonly #devices: ReadonlyArray<VirtioMmio>
  readonly #mapping: Exclude<ReturnType<KvmNative["map"]>, number>
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly #portRing: PortRing | undefined
  #ended = false

  /** @throws Error when KVM refuses the thread */
  constructor(native: KvmNative, data: VcpuThreadData, parts: VcpuThreadParts) {
    const { QUEUE_SIZE: queueSize, ROW, Request, Virtio: abi, Word } = data.abi
    this.#native = native
    this.#data = data
    this.#words = new Int32Array(data.words)
    this.#row = (1 + data.id) * ROW
    this.#lock = new parts.FutexLock(this.#words, Word.LOCK)
    const irqchip = data.irqchip ? data.vm : undefined
    const irqLine = Request.KVM_IRQ_LINE
    const mmio = { irqLine, abi, queueSize, Lock: parts.FutexLock }
    this.#uarts = data.uarts.map((place) => new parts.Uart(place, native, irqchip, irqLine))
    this.#devices = data.virtio.map((place) => new parts.VirtioMmio(place, native, irqchip, mmio))
    this.#blockKicks()
    const mapping = native.map(data.vcpu, 0, data.runBytes)
    if (typeof mapping === "number") throw new Error(`mmap of vCPU ${data.id}: errno ${-mapping}`)
    this.#mapping = mapping
    this.#view = new DataView(mapping.bytes)
    this.#bytes = new Uint8Array(mapping.bytes)
    this.#portRing = data.portRing && new parts.PortRing(mapping.bytes, data.portRing, this.#uarts)
  }

  /** Until the vCPU ends. */
  run(): void {
    const { Request, VcpuEnd, VcpuState, VcpuWord, Word, run: at } = this.#data.abi
    const native = this.#native
    Atomics.store(this.#words, this.#row + VcpuWord.THREAD, native.threadId())
    this.#setState(VcpuState.RUNNING)
    try {
      this.#obey()
      while (!this.#ended) {
        const result = native.ioctl(this.#data.vcpu, Request.KVM_RUN, 0)
        if (result === 0) this.#handle(this.#view.getUint32(at.exit_reason, true))
        else if (result === -VcpuThread.#EINTR) {
          native.takeKicks()
          this.#obey()
        } // a CPU that waits to be started comes back now and then
        else if (result !== -VcpuThread.#EAGAIN) this.#end(VcpuEnd.RUN_FAILED, -result)
      }
    } finally {
      native.unmap(this.#mapping)
    }
    // the last word: whoever reads it sends this thread no signal any more
    this.#setState(VcpuState.ENDED)
    this.#tellMain(Word.EVENTS)
  }

  /** Kicks reach this thread inside KVM_RUN only. */
  #blockKicks(): void {
    const { id, vcpu } = this.#data
    const mask = this.#native.blockKick()
    const signalMask = new Uint8Array(4 + mask.length) // struct kvm_signal_mask: the length, the kernel's sigset
    new DataView(signalMask.buffer).setUint32(0, mask.length, true)
    signalMask.set(mask, 4)
    const masked = this.#native.ioctl(vcpu, this.#data.abi.Request.KVM_SET_SIGNAL_MASK, signalMask)
    if (masked < 0) throw new Error(`KVM_SET_SIGNAL_MASK of vCPU ${id}: errno ${-masked}`)
  }

  #setState(state: number): void {
    const at = this.#row + this.#data.abi.VcpuWord.STATE
    Atomics.store(this.#words, at, state)
    Atomics.notify(this.#words, at)
  }

  #tellMain(word: number): void {
    Atomics.add(this.#words, word, 1)
    Atomics.notify(this.#words, word)
  }

  #end(why: number, detail: number): void {
    if (this.#ended) return // the first reason is the reason
    const { VcpuWord } = this.#data.abi
    this.#ended = true
    Atomics.store(this.#words, this.#row + VcpuWord.END, why)
    Atomics.store(this.#words, this.#row + VcpuWord.END_DETAIL, detail)
  }

  /**
   * Wait while asked to; false when it is to stop. The request is read again after saying that it runs: a thread that is
   * just leaving its parking place when the next freeze finds it there must not enter the guest.
   */
  #obey(): boolean {
    const { VcpuEnd, VcpuRequest, VcpuState, VcpuWord } = this.#data.abi
    const at = this.#row + VcpuWord.REQUEST
    let request = Atomics.load(this.#words, at)
    while (request === VcpuRequest.PARK || request === VcpuRequest.HIT) {
      const parkedAt = new BigInt64Array(this.#data.words, (this.#row + VcpuWord.PARKED_AT) * 4, 1)
      parkedAt[0] = process.hrtime.bigint()
      this.#setState(VcpuState.PARKED)
      Atomics.wait(this.#words, at, request)
      this.#setState(VcpuState.RUNNING)
      request = Atomics.load(this.#words, at)
    }
    if (request === VcpuRequest.STOP) this.#end(VcpuEnd.STOPPED, 0)
    return !this.#ended
  }

  #handle(exit: number): void {
    const { Exit, VcpuEnd, run: at } = this.#data.abi
    switch (exit) {
      case Exit.KVM_EXIT_IO:
        return this.#io()
      case Exit.KVM_EXIT_MMIO:
        return this.#mmio()
      case Exit.KVM_EXIT_DEBUG:
        return this.#debug()
      case Exit.KVM_EXIT_INTR:
      case Exit.KVM_EXIT_IRQ_WINDOW_OPEN:
        return
      case Exit.KVM_EXIT_HLT:
        return this.#end(VcpuEnd.HALTED, 0)
      case Exit.KVM_EXIT_SHUTDOWN:
        return this.#end(VcpuEnd.TRIPLE_FAULT, 0)
      case Exit.KVM_EXIT_INTERNAL_ERROR:
        return this.#end(VcpuEnd.INTERNAL_ERROR, this.#view.getUint32(at["internal.suberror"], true))
      case Exit.KVM_EXIT_FAIL_ENTRY: {
        const reason = this.#view.getBigUint64(at["fail_entry.hardware_entry_failure_reason"], true)
        return this.#end(VcpuEnd.FAILED_ENTRY, Number(reason & 0x7fffffffn))
      }
      default:
        return this.#end(VcpuEnd.UNKNOWN_EXIT, exit)
    }
  }

  /** A debug register of ours has matched; or none has, and the exception is the guest's own. */
  #debug(): void {
    const { VcpuRequest, VcpuWord, Word, run } = this.#data.abi
    const dr6 = this.#view.getBigUint64(run["debug.arch.dr6"], true)
    if ((dr6 & VcpuThread.#MATCHED) === 0n) return this.#raiseDebug(dr6)
    const at = this.#row + VcpuWord.REQUEST
    for (;;) {
      const request = Atomics.load(this.#words, at)
      if (request === VcpuRequest.STOP) break
      if (Atomics.compareExchange(this.#words, at, request, VcpuRequest.HIT) !== request) continue
      this.#tellMain(Word.EVENTS)
      break
    }
    this.#obey()
  }

  /** Give the guest its own debug exception, of single steps: KVM gives us all of them while anything is watched. */
  #raiseDebug(dr6: bigint): void {
    const { Request, Struct } = this.#data.abi
    const { vcpu } = this.#data
    const registers = new Uint8Array(Struct.kvm_debugregs.size)
    const events = new Uint8Array(Struct.kvm_vcpu_events.size)
    const call = (request: number, argument: Uint8Array) => {
      const result = this.#native.ioctl(vcpu, request, argument)
      if (result < 0) this.#end(this.#data.abi.VcpuEnd.RUN_FAILED, -result)
    }
    call(Request.KVM_GET_DEBUGREGS, registers)
    new DataView(registers.buffer).setBigUint64(Struct.kvm_debugregs.fields.dr6, dr6, true)
    call(Request.KVM_SET_DEBUGREGS, registers)
    call(Request.KVM_GET_VCPU_EVENTS, events)
    const at = Struct.kvm_vcpu_events.fields
    events[at["exception.injected"]] = 1
    events[at["exception.nr"]] = VcpuThread.#DB_VECTOR
    events[at["exception.has_error_code"]] = 0
    call(Request.KVM_SET_VCPU_EVENTS, events)
  }

  #io(): void {
    const { Constant, run: at } = this.#data.abi
    const view = this.#view
    const size = view.getUint8(at["io.size"])
    const port = view.getUint16(at["io.port"], true)
    const count = view.getUint32(at["io.count"], true)
    const start = view.getUint32(at["io.data_offset"], true) // the lower half: it is within the mapping
    const outward = view.getUint8(at["io.direction"]) === Constant.KVM_EXIT_IO_OUT
    for (let i = 0; i < count && !this.#ended; i++) {
      for (let byte = 0; byte < size && !this.#ended; byte++) {
        const position = start + i * size + byte
        if (outward) this.#out(port + byte, this.#bytes[position], size)
        else this.#bytes[position] = this.#in(port + byte)
      }
    }
  }

  #mmio(): void {
    const { Word, run: at } = this.#data.abi
    const address = Number(this.#view.getBigUint64(at["mmio.phys_addr"], true))
    const count = this.#view.getUint32(at["mmio.len"], true)
    const moved = this.#bytes.subarray(at["mmio.data"], at["mmio.data"] + count)
    const device = this.#devices.find(({ base }) => address >= base && address < base + 0x1000)
    if (this.#view.getUint8(at["mmio.is_write"]) !== 0) {
      if (device?.write(address - device.base, moved) === true) this.#tellMain(Word.EVENTS)
    } else if (device !== undefined) device.read(address - device.base, moved)
    else moved.fill(0xff) // nothing is there: reads give all ones, writes go nowhere
  }

  #uartAt(port: number): Uart | undefined {
    return this.#uarts.find(({ base }) => port >= base && port < base + 8)
  }

  #sendKept(): boolean {
    return this.#portRing === undefined || this.#portRing.send()
  }

  /** Handle a serial port access in order, after earlier output; `run` is false while there is no room. */
  #serial(run: () => boolean): void {
    const { VcpuRequest, VcpuWord, Word } = this.#data.abi
    this.#lock.lock()
    const first = this.#uarts.every((uart) => uart.empty())
    let done = this.#sendKept() && run()
    const tell = first && !this.#uarts.every((uart) => uart.empty()) // of bytes behind the first main knows
    this.#lock.unlock()
    if (tell) this.#tellMain(Word.SENT)
    while (!done && this.#obey()) { // a freeze need not wait until main has made room
      Atomics.wait(this.#words, this.#row + VcpuWord.REQUEST, VcpuRequest.RUN, 1)
      this.#lock.lock()
      done = this.#sendKept() && run()
      this.#lock.unlock()
    }
  }

  #pm1Enable(): number {
    return Atomics.load(this.#words, this.#data.abi.Word.PM1_ENABLE)
  }

  #out(port: number, value: number, size: number): void {
    const { PM_PORT, RESET_PORT, S5_TYPE, VcpuEnd, Word } = this.#data.abi
    const uart = this.#uartAt(port)
    if (uart !== undefined) this.#serial(() => uart.write(port - uart.base, value))
    // the keyboard controller's command "pulse the reset line"; the chipset's reset control, which a byte alone reaches:
    // a wider write there is PCI's configuration address
    else if (port === 0x64 && value === 0xfe) this.#end(VcpuEnd.RESET, port)
    else if (port === RESET_PORT && size === 1 && (value & 4) !== 0) this.#end(VcpuEnd.RESET, port)
    // PM1 enable, byte by byte: no event comes, but Linux looks whether what it wrote is there
    else if (port === PM_PORT + 2) {
      Atomics.store(this.#words, Word.PM1_ENABLE, (this.#pm1Enable() & 0xff00) | value)
    } else if (port === PM_PORT + 3) {
      Atomics.store(this.#words, Word.PM1_ENABLE, (this.#pm1Enable() & 0xff) | (value << 8))
    } // the upper byte of ACPI's PM1 control: SLP_EN, SLP_TYP
    else if (port === PM_PORT + 5 && (value & 0x20) !== 0 && ((value >> 2) & 7) === S5_TYPE) {
      this.#end(VcpuEnd.POWERED_OFF, port)
    }
  }

  #in(port: number): number {
    const { PM_PORT } = this.#data.abi
    const uart = this.#uartAt(port)
    if (uart === undefined) {
      if (port === PM_PORT + 2) return this.#pm1Enable() & 0xff
      if (port === PM_PORT + 3) return this.#pm1Enable() >> 8
      // ACPI's other registers: no event is pending, and the machine is in ACPI mode (SCI_EN); all else is not there
      return port === PM_PORT + 4 ? 1 : port >= PM_PORT && port < PM_PORT + 6 ? 0 : 0xff
    }
    // a kernel's console asks so for each byte: those that KVM keeps meanwhile may stay there
    const status = port === uart.base + 5 ? uart.polledStatus() : undefined
    if (status !== undefined) return status
    let value = 0xff
    this.#serial(() => {
      value = uart.read(port - uart.base)
      return true
    })
    return value
  }
}
