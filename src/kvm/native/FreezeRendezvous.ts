import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { seconds } from "../spec/RealTime.ts"
import type { VmDied } from "../spec/VmDied.ts"
import { FreezeFailed, type FrozenVcpu } from "../spec/VmEngine.ts"
import { type KvmError, kvmSync } from "./abi/KvmError.ts"
import type { KvmVm } from "./abi/KvmVm.ts"
import { type ClockReading, readClock, setClockBack } from "./cpu/GuestClock.ts"
import { readRegisters } from "./cpu/Registers.ts"
import type { MachineEnding, MachineStopped } from "./MachineEnding.ts"
import { VcpuRequest, VcpuState, VcpuWord } from "./thread/SharedWords.ts"
import type { VcpuWorker } from "./VcpuWorker.ts"

/** A machine whose vCPUs are all parked outside KVM_RUN. */
export interface FrozenMachine {
  /** When all vCPUs were known to be parked, in milliseconds since 1970. */
  readonly takenAt: number
  readonly vcpus: ReadonlyArray<FrozenVcpu>
}

export interface FreezeOptions {
  readonly vm: KvmVm
  readonly workers: ReadonlyArray<VcpuWorker>
  readonly ending: MachineEnding
  readonly limit: Duration.Duration
  /** Called when all vCPUs are parked. */
  readonly onFrozen: () => void
  /** Called when the guest runs again. */
  readonly onThaw: () => void
}

/** Rendezvous of the vCPUs: they are asked to park, waited for, and released by the last holder. */
export class FreezeRendezvous {
  readonly #options: FreezeOptions
  readonly #alone = Effect.unsafeMakeSemaphore(1).withPermits(1)
  #holders = 0
  #frozen: { readonly machine: FrozenMachine; readonly clock: ClockReading } | undefined

  constructor(options: FreezeOptions) {
    this.#options = options
  }

  /** Whether a freeze is wanted or held. */
  get wanted(): boolean {
    return this.#holders > 0
  }

  /** Stop every vCPU until the scope closes; scopes are counted. When it fails, the guest runs on. */
  readonly freeze: Effect.Effect<FrozenMachine, FreezeFailed | MachineStopped | VmDied, Scope.Scope> = Effect
    .uninterruptibleMask((restore) =>
      Effect.gen(this, function*() {
        this.#holders++
        const release = this.#alone(this.#letGo)
        const machine = yield* Effect.onError(restore(this.#alone(this.#stop)), () => release)
        yield* Effect.addFinalizer(() => release)
        return machine
      })
    )

  /** Keeps a machine that stands, or is about to, so from this call on until what it gives is run. */
  readonly keep = (): Effect.Effect<void> => {
    this.#holders++
    this.#askAll(VcpuRequest.PARK)
    return this.#alone(this.#letGo)
  }

  /**
   * Park every vCPU, look at them, and let them run again; nothing where a freeze holds them, or is late, or the machine
   * has ended, or KVM does not say.
   */
  glance(look: () => void): Effect.Effect<void> {
    return this.#alone(
      Effect.suspend(() =>
        this.wanted || this.#options.ending.settle() ? Effect.void : Effect.zipRight(this.#park, kvmSync(look))
      ).pipe(
        Effect.timeoutOption(this.#options.limit),
        Effect.ignore,
        Effect.ensuring(Effect.sync(() => {
          if (!this.wanted) this.#askAll(VcpuRequest.RUN)
        }))
      )
    )
  }

  #askAll(request: number): void {
    for (const worker of this.#options.workers) worker.ask(request)
  }

  /** All threads outside KVM_RUN; they are asked more than once, because a signal may find no room (EAGAIN). */
  readonly #park: Effect.Effect<void, MachineStopped | VmDied> = Effect.gen(this, function*() {
    const { ending, workers } = this.#options
    this.#askAll(VcpuRequest.PARK)
    for (const worker of workers) {
      while (worker.state() !== VcpuState.PARKED) {
        if (ending.settle()) return yield* ending.stopped
        yield* worker.changes
        if (worker.state() !== VcpuState.PARKED) worker.ask(VcpuRequest.PARK)
      }
    }
  })

  readonly #stop: Effect.Effect<FrozenMachine, FreezeFailed | MachineStopped | VmDied> = Effect.gen(
    this,
    function*() {
      const { ending, onFrozen } = this.#options
      if (ending.settle()) return yield* ending.stopped
      if (this.#frozen !== undefined) return this.#frozen.machine
      const askedAt = process.hrtime.bigint()
      yield* this.#park
      const takenAt = Date.now()
      onFrozen()
      this.#frozen = yield* this.#read(askedAt, takenAt)
      return this.#frozen.machine
    }
  ).pipe(
    Effect.catchTag(
      "KvmError",
      (error) => new FreezeFailed({ seconds: seconds(this.#options.limit), why: error.message })
    ),
    (stop) => Effect.suspend(() => Effect.timeoutFail(stop, { duration: this.#options.limit, onTimeout: this.#late }))
  )

  #read(askedAt: bigint, takenAt: number): Effect.Effect<{ machine: FrozenMachine; clock: ClockReading }, KvmError> {
    const { vm, workers } = this.#options
    return kvmSync(() => ({
      clock: readClock(vm),
      machine: {
        takenAt,
        vcpus: workers.map(({ id, parkedAt }) => ({
          id,
          // a thread that has not run since the last freeze was parked already
          parkMicros: Math.max(0, Number(parkedAt() - askedAt) / 1000),
          registers: readRegisters(vm.native, vm.vcpus[id])
        }))
      }
    }))
  }

  readonly #late = (): FreezeFailed => {
    const { limit, workers } = this.#options
    const late = workers.filter((worker) => worker.state() !== VcpuState.PARKED)
    const state = stateName(late.at(0)?.state() ?? VcpuState.PARKED)
    const why = late.map((worker) =>
      `vCPU ${worker.id} is ${stateName(worker.state())} (thread ${worker.word(VcpuWord.THREAD)})`
    )
    return new FreezeFailed({ seconds: seconds(limit), why: why.join(", "), vcpu: late.at(0)?.id, state })
  }

  readonly #letGo: Effect.Effect<void> = Effect.suspend(() => {
    if (--this.#holders > 0) return Effect.void
    const { ending, onThaw, vm } = this.#options
    const clock = this.#frozen?.clock
    this.#frozen = undefined
    const set = clock === undefined || ending.over ? Effect.void : kvmSync(() => setClockBack(vm, clock))
    return set.pipe(
      Effect.catchAll((error) => Effect.logWarning(`the guest sees how long it was frozen: ${error.message}`)),
      Effect.ensuring(Effect.sync(() => {
        this.#askAll(VcpuRequest.RUN)
        onThaw()
      }))
    )
  })
}

const stateName = (state: number): string =>
  Object.entries(VcpuState).find(([, value]) => value === state)?.[0].toLowerCase() ?? `${state}`
