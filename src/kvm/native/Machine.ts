import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { readFileSync } from "node:fs"
import type { VcpuRegisters } from "../spec/VcpuRegisters.ts"
import { VmDied } from "../spec/VmDied.ts"
import { FreezeTimeout, type FrozenVcpu } from "../spec/VmEngine.ts"
import { Constant, Exit, Request, Struct } from "./abi/KvmAbi.ts"
import { KvmError, kvmSync, succeeded } from "./abi/KvmError.ts"
import { checkExtension, type KvmVm } from "./abi/KvmVm.ts"
import { Virtio } from "./abi/VirtioAbi.ts"
import { PM_PORT, RESET_PORT, S5_TYPE } from "./abi/AcpiPorts.ts"
import { type ClockReading, readClock, setClockBack } from "./cpu/GuestClock.ts"
import { readRegisters } from "./cpu/Registers.ts"
import { FutexLock } from "./thread/FutexLock.ts"
import { PortRing, type PortRingPlace } from "./thread/PortRing.ts"
import { ROW, VcpuEnd, VcpuRequest, VcpuState, VcpuWord, Word } from "./thread/SharedWords.ts"
import { Uart, uartPlaces } from "./thread/Uart.ts"
import type { VcpuThreadData } from "./thread/VcpuThread.ts"
import { QUEUE_SIZE, VirtioMmio } from "./thread/VirtioMmio.ts"
import { startVcpu, type VcpuWorker } from "./VcpuWorker.ts"
import { serveDevice, type VirtioDevice, virtioPlaces } from "./virtio/VirtioDevice.ts"

/** An end that the guest wished for, and by which port it said so; or its scope has closed. */
export interface MachineEnd {
  readonly end: "reset" | "powerOff" | "closed"
  readonly detail: string
}

/** The guest has ended by its own wish, or the VM is being closed: there is nothing to freeze. */
export class MachineStopped extends Schema.TaggedError<MachineStopped>("ktstr/MachineStopped")("MachineStopped", {
  detail: Schema.String
}) {
  override get message() {
    return `the guest has ended (${this.detail}); freeze it before it does`
  }
}

/** A machine whose vCPUs all stand outside KVM_RUN. */
export interface FrozenMachine {
  /** Milliseconds since 1970 at which all vCPUs were known to stand. */
  readonly takenAt: number
  readonly vcpus: ReadonlyArray<FrozenVcpu>
}

export interface Machine {
  /** Stop every vCPU until the scope closes; scopes are counted, and it is let go when it fails. */
  readonly freeze: Effect.Effect<FrozenMachine, FreezeTimeout | MachineStopped | VmDied, Scope.Scope>
  /** Waits for the machine's end; fails when no guest wishes for such an end. */
  readonly ended: Effect.Effect<MachineEnd, VmDied>
  /** Bytes for serial port `port` (0 or 1); how many there was room for. */
  readonly receive: (port: number, bytes: Uint8Array) => Effect.Effect<number>
  /** Take what the guest sent on its serial ports, as far as `holdsSerial` lets it. */
  readonly drain: () => void
  /** Let virtio device number `index` look at its queues; while a freeze is wanted, when it is over. */
  readonly ring: (index: number) => Effect.Effect<void>
  /** Change what the driver of virtio device number `index` reads as its configuration, and tell it. */
  readonly configure: (index: number, config: Uint8Array) => Effect.Effect<void>
}

export interface MachineOptions {
  readonly irqchip: boolean
  /** At most `MOST_DEVICES`; Linux hears of them by `virtioWords`. */
  readonly virtio?: ReadonlyArray<VirtioDevice>
  /** Whether a triple fault is the guest's way to reset (`reboot=t`). */
  readonly tripleFaultResets: boolean
  readonly freezeTimeout: Duration.Duration
  /** What the guest sends on a serial port. Called from the event loop. */
  readonly onSerial: (port: number, bytes: Uint8Array) => void
  /** Whether what the guest sends on a serial port has to wait; `drain` when it has no more. */
  readonly holdsSerial?: (port: number) => boolean
  /** The console's last lines, for the report of a death. */
  readonly consoleTail: () => ReadonlyArray<string>
}

/** Bytes that each direction of a serial port holds back. */
const RING = 2 ** 16
/**
 * How long a guest that sends on a serial port is left to, in milliseconds, before what it sent is taken: at first, and at
 * most when it goes on. Whoever reads it takes the guest's time for each piece where CPUs are few; but a ring half full
 * must not stop it.
 */
const GATHER_MILLIS = { first: 10, most: 80 }
/** Longest that a byte which KVM keeps waits for the guest to do anything else with its ports, in milliseconds. */
const KEPT_MILLIS = 200
/**
 * How often to look whether any vCPU has run since the last time, in milliseconds. A guest's own timers, of which the
 * slowest that KVM can make an NMI of is the PIT at 55 ms, have come meanwhile.
 */
const LOOK_MILLIS = 2000
const mmioParts = { irqLine: Request.KVM_IRQ_LINE, abi: Virtio, queueSize: QUEUE_SIZE, Lock: FutexLock }
/** RFLAGS.IF */
const INTERRUPTS_ON = 0x200n

/**
 * Run a VM whose memory and registers are ready: a thread a vCPU, two serial ports, virtio devices, until the scope
 * closes. All threads have left the guest, and have ended, before the scope's earlier resources (memory, descriptors) go.
 */
export const startMachine = (vm: KvmVm, options: MachineOptions): Effect.Effect<Machine, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { native } = vm
    const cpus = vm.vcpus.length
    const shared = new SharedArrayBuffer((1 + cpus) * ROW * 4)
    const words = new Int32Array(shared)
    const parkedAt = (id: number) => new BigInt64Array(shared, ((1 + id) * ROW + VcpuWord.PARKED_AT) * 4, 1)[0]
    const lock = new FutexLock(words, Word.LOCK)
    const places = uartPlaces.map((place) => ({ ...place, memory: new SharedArrayBuffer(64 + 2 * RING) }))
    const uarts: ReadonlyArray<Uart> = places.map((place) =>
      new Uart(place, native, options.irqchip ? vm.vm : undefined, Request.KVM_IRQ_LINE)
    )
    const devices = options.virtio ?? []
    const virtio = virtioPlaces(devices)
    const registers = virtio.map((place) =>
      new VirtioMmio(place, native, options.irqchip ? vm.vm : undefined, mmioParts)
    )
    const ringMain = () => {
      Atomics.add(words, Word.EVENTS, 1)
      Atomics.notify(words, Word.EVENTS)
    }
    const mapping = yield* Effect.acquireRelease(
      Effect.orDie(kvmSync(() => {
        const mapping = native.map(vm.vcpus[0], 0, vm.runBytes)
        if (typeof mapping === "number") throw KvmError.of("mmap", -mapping)
        return mapping
      })),
      (mapping) => Effect.sync(() => native.unmap(mapping))
    )
    const portRing = yield* Effect.orDie(kvmSync(() => keepPorts(vm)))
    const kept = portRing && new PortRing(mapping.bytes, portRing, uarts)
    /** Take what the serial ports have sent; how many bytes it was. */
    const drain = (): number =>
      uarts.map((uart, port) => {
        if (!over && options.holdsSerial?.(port) === true) return 0
        const bytes = lock.hold(() => {
          kept?.send()
          return uart.take()
        })
        if (bytes.length > 0) options.onSerial(port, bytes)
        return bytes.length
      }).reduce((sum, count) => sum + count)

    /** What the guest asks of its devices; the memory of one that is to be frozen stays as it is. */
    const serve = () =>
      registers.forEach((mmio, index) => {
        if (holders === 0 && !over && serveDevice(vm.memory, devices[index], mmio)) ringMain()
      })
    registers.forEach((mmio, index) => mmio.locked(() => mmio.configure(devices[index].config)))

    const ended = yield* Deferred.make<MachineEnd, VmDied>()
    let holders = 0
    let over = false
    yield* Effect.addFinalizer(() => Effect.sync(drain))
    const threads: Array<VcpuWorker> = []
    for (const [id, vcpu] of vm.vcpus.entries()) {
      const data: VcpuThreadData = {
        id,
        vm: vm.vm,
        vcpu,
        runBytes: vm.runBytes,
        irqchip: options.irqchip,
        words: shared,
        uarts: places,
        portRing,
        virtio,
        abi: {
          Request,
          Exit,
          Constant,
          run: Struct.kvm_run.fields,
          Word,
          VcpuWord,
          VcpuState,
          VcpuRequest,
          VcpuEnd,
          ROW,
          PM_PORT,
          RESET_PORT,
          S5_TYPE,
          Virtio,
          QUEUE_SIZE
        }
      }
      threads.push(yield* startVcpu(native, data))
    }

    const endOf = (thread: VcpuWorker): Either.Either<MachineEnd, VmDied> => {
      const vcpu = thread.id
      const [code, number] = [thread.word(VcpuWord.END), thread.word(VcpuWord.END_DETAIL)]
      const at = `by port 0x${number.toString(16)}`
      if (thread.broken() === undefined) {
        if (code === VcpuEnd.RESET) return Either.right({ end: "reset", detail: at })
        if (code === VcpuEnd.POWERED_OFF) return Either.right({ end: "powerOff", detail: at })
        if (code === VcpuEnd.TRIPLE_FAULT && options.tripleFaultResets) {
          return Either.right({ end: "reset", detail: "by a triple fault" })
        }
      }
      const [end, detail] = deathOf(code, number, thread.broken())
      const registers = tryRegisters(vm, vcpu)
      return Either.left(new VmDied({ end, detail, vcpu, registers, consoleTail: options.consoleTail() }))
    }
    const finish = (exit: () => Either.Either<MachineEnd, VmDied>) => {
      if (over) return
      over = true
      threads.forEach((thread) => thread.ask(VcpuRequest.STOP))
      drain()
      drain() // what KVM kept behind a full ring
      Deferred.unsafeDone(ended, exit())
    }
    /** The first vCPU that ended by itself ends the machine. */
    const settle = () => {
      if (over) return true
      const thread = threads.find((thread) =>
        thread.broken() !== undefined ||
        (thread.state() === VcpuState.ENDED && thread.word(VcpuWord.END) !== VcpuEnd.STOPPED)
      )
      if (thread !== undefined) finish(() => endOf(thread))
      return over
    }
    /** Waits until a shared word is not what was seen any more, or for so long. */
    const changes = (word: number, seen: number, millis: number) => {
      const change = Atomics.waitAsync(words, word, seen, millis)
      // a guest that never stops asking must not keep all else from its turn
      return Effect.promise(() => change.async ? change.value : new Promise((resolve) => setImmediate(resolve)))
    }
    yield* Effect.forkScoped(Effect.gen(function*() {
      for (let gather = GATHER_MILLIS.first; !over;) {
        const seen = Atomics.load(words, Word.SENT)
        const sent = drain()
        if (sent > 0) { // more comes behind it: waking up for each byte would take longer than sending it
          yield* Effect.sleep(gather)
          gather = sent < RING / 16 ? Math.min(2 * gather, GATHER_MILLIS.most) : GATHER_MILLIS.first
        } else {
          yield* changes(Word.SENT, seen, KEPT_MILLIS)
          gather = GATHER_MILLIS.first
        }
      }
    }))
    yield* Effect.forkScoped(Effect.gen(function*() {
      for (;;) {
        const seen = Atomics.load(words, Word.EVENTS)
        serve()
        if (settle()) return
        yield* changes(Word.EVENTS, seen, Infinity)
      }
    }))
    for (const thread of threads) thread.onBroken(ringMain)
    // the first to run: nobody touches the VM's descriptors and memory any more, and who waits for its end hears of it
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => finish(() => Either.right({ end: "closed", detail: "the VM is closed" })))
    )

    const seconds = Duration.toSeconds(options.freezeTimeout)
    const alone = Effect.unsafeMakeSemaphore(1).withPermits(1)
    let frozen: { readonly machine: FrozenMachine; readonly clock: ClockReading } | undefined

    const letGo = Effect.suspend(() => {
      if (--holders > 0) return Effect.void
      const clock = frozen?.clock
      frozen = undefined
      const set = clock === undefined || over ? Effect.void : kvmSync(() => setClockBack(vm, clock))
      return set.pipe(
        Effect.catchAll((error) => Effect.logWarning(`the guest sees how long it was frozen: ${error.message}`)),
        Effect.ensuring(Effect.sync(() => {
          threads.forEach((thread) => thread.ask(VcpuRequest.RUN))
          ringMain() // for what the devices left
        }))
      )
    })
    const stopped = Effect.flatMap(Deferred.await(ended), ({ detail }) => new MachineStopped({ detail }))
    /** All threads outside KVM_RUN; they are asked more than once, for a signal may find no room (EAGAIN). */
    const park: Effect.Effect<void, MachineStopped | VmDied> = Effect.gen(function*() {
      for (const thread of threads) thread.ask(VcpuRequest.PARK)
      for (const thread of threads) {
        while (thread.state() !== VcpuState.PARKED) {
          if (settle()) return yield* stopped
          yield* thread.changes
          if (thread.state() !== VcpuState.PARKED) thread.ask(VcpuRequest.PARK)
        }
      }
    })
    const stop = Effect.gen(function*() {
      if (settle()) return yield* stopped
      if (frozen !== undefined) return frozen.machine
      const askedAt = process.hrtime.bigint()
      yield* park
      const takenAt = Date.now()
      drain() // what a frozen guest has sent is there
      frozen = yield* kvmSync(() => ({
        clock: readClock(vm),
        machine: {
          takenAt,
          vcpus: threads.map(({ id }) => ({
            id,
            // a thread that had not left its place since the freeze before stood already
            parkMicros: Math.max(0, Number(parkedAt(id) - askedAt) / 1000),
            registers: readRegisters(native, vm.vcpus[id])
          }))
        }
      }))
      return frozen.machine
    }).pipe(
      Effect.catchTag("KvmError", (error) => new FreezeTimeout({ seconds, why: error.message })),
      Effect.timeoutFail({
        duration: options.freezeTimeout,
        onTimeout: () => {
          const late = threads.filter((thread) => thread.state() !== VcpuState.PARKED)
          const state = stateName(late.at(0)?.state() ?? VcpuState.PARKED)
          const why = late.map((thread) =>
            `vCPU ${thread.id} is ${stateName(thread.state())} (thread ${thread.word(VcpuWord.THREAD)})`
          )
          return new FreezeTimeout({ seconds, why: why.join(", "), vcpu: late.at(0)?.id, state })
        }
      })
    )

    /** With interrupt controllers KVM itself halts a vCPU, and never says that nothing can wake it. */
    const look = Effect.gen(function*() {
      if (frozen !== undefined || settle()) return
      yield* park
      const [first, ...others] = threads.map(({ id }) => id)
      if (!(yield* kvmSync(() => [first, ...others].every((id) => isStuck(vm, id))))) return
      const [end, detail] = deathOf(VcpuEnd.HALTED, 0, undefined)
      const registers = tryRegisters(vm, first)
      finish(() => Either.left(new VmDied({ end, detail, vcpu: first, registers, consoleTail: options.consoleTail() })))
    }).pipe(
      Effect.timeoutOption(options.freezeTimeout),
      // a machine that has ended needs no look, and one that KVM says nothing of is looked at again
      Effect.ignore,
      Effect.ensuring(Effect.sync(() => {
        if (frozen === undefined) threads.forEach((thread) => thread.ask(VcpuRequest.RUN))
      }))
    )
    if (options.irqchip) {
      yield* Effect.forkScoped(Effect.gen(function*() {
        for (let before = ""; !over;) {
          yield* Effect.sleep(LOOK_MILLIS)
          const ran = threads.map((thread) => timeOf(thread.word(VcpuWord.THREAD))).join()
          if (ran === before && holders === 0) yield* alone(look)
          before = ran
        }
      }))
    }

    return {
      ended: Deferred.await(ended),
      drain: () => {
        if (!over) drain()
      },
      receive: (port, bytes) => Effect.sync(() => over ? bytes.length : lock.hold(() => uarts[port].receive(bytes))),
      ring: (index) =>
        Effect.sync(() => {
          registers[index].locked(() => registers[index].leaveWork())
          ringMain()
        }),
      configure: (index, config) =>
        Effect.sync(() => {
          if (!over) registers[index].locked(() => registers[index].configure(config))
        }),
      freeze: Effect.uninterruptibleMask((restore) =>
        Effect.gen(function*() {
          holders++
          const machine = yield* Effect.onError(restore(alone(stop)), () => alone(letGo))
          yield* Effect.addFinalizer(() => alone(letGo))
          return machine
        })
      )
    }
  })

/** CPU time of a thread of this process and how often it ran, as the kernel prints them; empty where there is none. */
const timeOf = (thread: number): string => {
  try {
    return readFileSync(`/proc/self/task/${thread}/schedstat`, "latin1")
  } catch {
    return ""
  }
}

/**
 * Whether a parked vCPU can never go on: it stands in HLT with its interrupts off, and no NMI or SMI is on its way; or
 * it waits to be started, which only another vCPU could do. @throws KvmError
 */
const isStuck = ({ native, vcpus }: KvmVm, id: number): boolean => {
  const state = new Int32Array(1) // struct kvm_mp_state
  succeeded("KVM_GET_MP_STATE", native.ioctl(vcpus[id], Request.KVM_GET_MP_STATE, new Uint8Array(state.buffer)))
  if (state[0] === Constant.KVM_MP_STATE_UNINITIALIZED) return true
  if (state[0] !== Constant.KVM_MP_STATE_HALTED) return false
  const events = new Uint8Array(Struct.kvm_vcpu_events.size)
  succeeded("KVM_GET_VCPU_EVENTS", native.ioctl(vcpus[id], Request.KVM_GET_VCPU_EVENTS, events))
  const at = Struct.kvm_vcpu_events.fields
  const comes = events[at["nmi.pending"]] | events[at["smi.pending"]] | events[at["smi.latched_init"]]
  return comes === 0 && (readRegisters(native, vcpus[id]).general.rflags & INTERRUPTS_ON) === 0n
}

/** Have KVM keep what the guest sends on its serial ports, where it can (since Linux 4.20). @throws KvmError */
const keepPorts = ({ kvm, native, vm }: KvmVm): PortRingPlace | undefined => {
  if (checkExtension(native, kvm, "KVM_CAP_COALESCED_PIO") <= 0) return undefined
  for (const { base } of uartPlaces) {
    const zone = new DataView(new ArrayBuffer(Struct.kvm_coalesced_mmio_zone.size))
    const { addr, pio, size } = Struct.kvm_coalesced_mmio_zone.fields
    zone.setBigUint64(addr, BigInt(base), true)
    zone.setUint32(size, 1, true)
    zone.setUint32(pio, 1, true)
    const result = native.ioctl(vm, Request.KVM_REGISTER_COALESCED_MMIO, new Uint8Array(zone.buffer))
    succeeded("KVM_REGISTER_COALESCED_MMIO", result)
  }
  return {
    offset: Constant.KVM_COALESCED_MMIO_PAGE_OFFSET * 4096,
    ring: Struct.kvm_coalesced_mmio_ring,
    entry: Struct.kvm_coalesced_mmio
  }
}

const stateName = (state: number): string =>
  Object.entries(VcpuState).find(([, value]) => value === state)?.[0].toLowerCase() ?? `${state}`

const deathOf = (code: number, number: number, broken: string | undefined): [VmDied["end"], string] => {
  if (broken !== undefined) return ["failed", broken]
  switch (code) {
    case VcpuEnd.TRIPLE_FAULT:
      return ["tripleFault", "it could not handle a fault, nor the fault of that"]
    case VcpuEnd.HALTED:
      return ["halted", "it waits for an interrupt that cannot come"]
    case VcpuEnd.INTERNAL_ERROR:
      return ["internalError", `KVM gave up, suberror ${number}`]
    case VcpuEnd.FAILED_ENTRY:
      return ["failEntry", `the CPU refused its state, reason 0x${number.toString(16)}`]
    case VcpuEnd.RUN_FAILED:
      return ["failed", KvmError.of("KVM_RUN", number).message]
    default:
      return ["unknownExit", `KVM left it with exit ${number}`]
  }
}

/** Undefined where KVM does not say: the end's reason must not be lost for that. */
const tryRegisters = (vm: KvmVm, vcpu: number): VcpuRegisters | undefined => {
  try {
    return readRegisters(vm.native, vm.vcpus[vcpu])
  } catch (error) {
    if (error instanceof KvmError) return undefined
    throw error
  }
}
