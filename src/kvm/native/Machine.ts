import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { FreezeTimeout, type FrozenVcpu } from "../VmEngine.ts"
import { PM_PORT, RESET_PORT, S5_TYPE } from "./Acpi.ts"
import { Constant, Exit, Request, Struct } from "./KvmAbi.ts"
import { KvmError, kvmSync, succeeded } from "./KvmError.ts"
import type { KvmVm } from "./KvmVm.ts"
import { readRegisters, type VcpuRegisters } from "./Registers.ts"
import { ROW, VcpuEnd, VcpuRequest, VcpuState, VcpuWord, Word } from "./SharedWords.ts"
import { type Uart, uartOver, uartPlaces } from "./Uart.ts"
import { lockOver, type VcpuThreadData } from "./VcpuThread.ts"
import { startVcpuThread, type VcpuThread } from "./VcpuWorker.ts"
import { VmDied } from "./VmDied.ts"

/** An end that the guest wished for, and by which port it said so. */
export interface MachineEnd {
  readonly end: "reset" | "powerOff"
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
}

export interface MachineOptions {
  readonly irqchip: boolean
  /** Whether a triple fault is the guest's way to reset (`reboot=t`). */
  readonly tripleFaultResets: boolean
  readonly freezeTimeout: Duration.Duration
  /** What the guest sends on a serial port. Called from the event loop. */
  readonly onSerial: (port: number, bytes: Uint8Array) => void
  /** The console's last lines, for the report of a death. */
  readonly consoleTail: () => ReadonlyArray<string>
}

/** Bytes that each direction of a serial port holds back. */
const RING = 2 ** 16

/**
 * Run a VM whose memory and registers are ready: a thread a vCPU, two serial ports, until the scope closes. All threads
 * have left the guest, and have ended, before the scope's earlier resources (memory, descriptors) go.
 */
export const startMachine = (vm: KvmVm, options: MachineOptions): Effect.Effect<Machine, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { native } = vm
    const cpus = vm.vcpus.length
    const shared = new SharedArrayBuffer((1 + cpus) * ROW * 4)
    const words = new Int32Array(shared)
    const parkedAt = (id: number) => new BigInt64Array(shared, ((1 + id) * ROW + VcpuWord.PARKED_AT) * 4, 1)[0]
    const lock = lockOver(words, Word.LOCK)
    const places = uartPlaces.map((place) => ({ ...place, memory: new SharedArrayBuffer(64 + 2 * RING) }))
    const uarts: ReadonlyArray<Uart> = places.map((place) =>
      uartOver(place, native, options.irqchip ? vm.vm : undefined, Request.KVM_IRQ_LINE)
    )
    const locked = <A>(run: () => A): A => {
      lock.lock()
      try {
        return run()
      } finally {
        lock.unlock()
      }
    }
    const drain = () =>
      uarts.forEach((uart, port) => {
        const bytes = locked(() => uart.take())
        if (bytes.length > 0) options.onSerial(port, bytes)
      })

    const ended = yield* Deferred.make<MachineEnd, VmDied>()
    yield* Effect.addFinalizer(() => Effect.sync(drain))
    const threads: Array<VcpuThread> = []
    for (const [id, vcpu] of vm.vcpus.entries()) {
      const data: VcpuThreadData = {
        id,
        vm: vm.vm,
        vcpu,
        runBytes: vm.runBytes,
        irqchip: options.irqchip,
        words: shared,
        uarts: places,
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
          S5_TYPE
        }
      }
      threads.push(yield* startVcpuThread(native, data))
    }

    const endOf = (thread: VcpuThread): Either.Either<MachineEnd, VmDied> => {
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
    let over = false
    /** The first vCPU that ended by itself ends the machine. */
    const settle = () => {
      if (over) return true
      const thread = threads.find((thread) =>
        thread.broken() !== undefined ||
        (thread.state() === VcpuState.ENDED && thread.word(VcpuWord.END) !== VcpuEnd.STOPPED)
      )
      if (thread === undefined) return false
      over = true
      threads.forEach((each) => each.ask(VcpuRequest.STOP))
      drain()
      Deferred.unsafeDone(ended, endOf(thread))
      return true
    }
    yield* Effect.forkScoped(Effect.gen(function*() {
      for (;;) {
        const seen = Atomics.load(words, Word.EVENTS)
        drain()
        if (settle()) return
        yield* Effect.promise(async () => Atomics.waitAsync(words, Word.EVENTS, seen).value)
      }
    }))
    for (const thread of threads) {
      thread.onBroken(() => {
        Atomics.add(words, Word.EVENTS, 1)
        Atomics.notify(words, Word.EVENTS)
      })
    }

    const seconds = Duration.toSeconds(options.freezeTimeout)
    const alone = Effect.unsafeMakeSemaphore(1).withPermits(1)
    let holders = 0
    let frozen: { readonly machine: FrozenMachine; readonly clock: Uint8Array } | undefined

    const letGo = Effect.sync(() => {
      if (--holders > 0) return
      try {
        if (frozen !== undefined) setClock(vm, frozen.clock)
      } finally {
        frozen = undefined
        threads.forEach((thread) => thread.ask(VcpuRequest.RUN))
      }
    })
    const stopped = Effect.flatMap(Deferred.await(ended), ({ detail }) => new MachineStopped({ detail }))
    const stop = Effect.gen(function*() {
      if (settle()) return yield* stopped
      if (frozen !== undefined) return frozen.machine
      const askedAt = process.hrtime.bigint()
      threads.forEach((thread) => thread.ask(VcpuRequest.PARK))
      for (const thread of threads) {
        while (thread.state() !== VcpuState.PARKED) {
          if (settle()) return yield* stopped
          yield* thread.changes
        }
      }
      const takenAt = Date.now()
      frozen = yield* kvmSync(() => ({
        clock: getClock(vm),
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

    return {
      ended: Deferred.await(ended),
      receive: (port, bytes) => Effect.sync(() => locked(() => uarts[port].receive(bytes))),
      freeze: Effect.zipRight(
        Effect.acquireRelease(Effect.sync(() => holders++), () => alone(letGo)),
        alone(stop)
      )
    }
  })

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

/** The guest's KVM clock, to be set back on thawing: the guest does not see the time between. @throws KvmError */
const getClock = (vm: KvmVm): Uint8Array => {
  const clock = new Uint8Array(Struct.kvm_clock_data.size)
  succeeded("KVM_GET_CLOCK", vm.native.ioctl(vm.vm, Request.KVM_GET_CLOCK, clock))
  return clock
}

const setClock = (vm: KvmVm, taken: Uint8Array): void => {
  const clock = taken.slice()
  // flags say what the reading was; a write takes the nanoseconds alone
  new DataView(clock.buffer).setUint32(Struct.kvm_clock_data.fields.flags, 0, true)
  succeeded("KVM_SET_CLOCK", vm.native.ioctl(vm.vm, Request.KVM_SET_CLOCK, clock))
}
