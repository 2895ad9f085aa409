import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberId from "effect/FiberId"
import * as Schema from "effect/Schema"
import type { VcpuRegisters } from "../spec/VcpuRegisters.ts"
import { VmDied } from "../spec/VmDied.ts"
import { KvmError } from "./abi/KvmError.ts"
import type { KvmVm } from "./abi/KvmVm.ts"
import { readRegisters } from "./cpu/Registers.ts"
import { VcpuEnd, VcpuRequest, VcpuState, VcpuWord } from "./thread/SharedWords.ts"
import type { VcpuWorker } from "./VcpuWorker.ts"

/** The guest asked to stop, and by which port; or the machine's scope has closed. */
export interface MachineEnd {
  readonly end: "reset" | "powerOff" | "closed"
  readonly detail: string
}

/** The guest has stopped by itself, or the VM is being closed: there is nothing to freeze. */
export class MachineStopped extends Schema.TaggedError<MachineStopped>("ktstr/MachineStopped")("MachineStopped", {
  detail: Schema.String
}) {
  override get message() {
    return `the guest has ended (${this.detail}); freeze it before it does`
  }
}

export interface MachineEndingOptions {
  readonly vm: KvmVm
  /** Those that were started so far. */
  readonly workers: ReadonlyArray<VcpuWorker>
  /** Whether a triple fault is the guest's way to reset (`reboot=t`). */
  readonly tripleFaultResets: boolean
  /** The console's last lines, for the report of a death. */
  readonly consoleTail: () => ReadonlyArray<string>
  /** Called once, when all vCPUs were told to stop and before anyone hears of the end. */
  readonly onEnd: () => void
}

/** How a machine comes to its end: once, for the first reason. */
export class MachineEnding {
  readonly #options: MachineEndingOptions
  readonly #ended = Deferred.unsafeMake<MachineEnd, VmDied>(FiberId.none)
  #over = false

  constructor(options: MachineEndingOptions) {
    this.#options = options
  }

  get over(): boolean {
    return this.#over
  }

  /** Waits for the machine's end; fails when no guest asks for such an end. */
  get ended(): Effect.Effect<MachineEnd, VmDied> {
    return Deferred.await(this.#ended)
  }

  /** Fails with the end, once it has come. */
  get stopped(): Effect.Effect<never, MachineStopped | VmDied> {
    return Effect.flatMap(this.ended, ({ detail }) => new MachineStopped({ detail }))
  }

  /** The first vCPU that ended by itself ends the machine; whether it has ended. */
  settle(): boolean {
    if (this.#over) return true
    const worker = this.#options.workers.find((worker) =>
      worker.broken() !== undefined ||
      (worker.state() === VcpuState.ENDED && worker.word(VcpuWord.END) !== VcpuEnd.STOPPED)
    )
    if (worker !== undefined) this.#finish(() => this.#endOf(worker))
    return this.#over
  }

  /** No vCPU can ever run again. */
  halt(vcpu: number): void {
    this.#finish(() => this.#died(vcpu, ...deathOf(VcpuEnd.HALTED, 0, undefined)))
  }

  /** The machine's scope closes. */
  close(): void {
    this.#finish(() => Either.right({ end: "closed", detail: "the VM is closed" }))
  }

  #finish(exit: () => Either.Either<MachineEnd, VmDied>): void {
    if (this.#over) return
    this.#over = true
    for (const worker of this.#options.workers) worker.ask(VcpuRequest.STOP)
    this.#options.onEnd()
    Deferred.unsafeDone(this.#ended, exit())
  }

  #endOf(worker: VcpuWorker): Either.Either<MachineEnd, VmDied> {
    const [code, number] = [worker.word(VcpuWord.END), worker.word(VcpuWord.END_DETAIL)]
    const at = `by port 0x${number.toString(16)}`
    if (worker.broken() === undefined) {
      if (code === VcpuEnd.RESET) return Either.right({ end: "reset", detail: at })
      if (code === VcpuEnd.POWERED_OFF) return Either.right({ end: "powerOff", detail: at })
      if (code === VcpuEnd.TRIPLE_FAULT && this.#options.tripleFaultResets) {
        return Either.right({ end: "reset", detail: "by a triple fault" })
      }
    }
    return this.#died(worker.id, ...deathOf(code, number, worker.broken()))
  }

  #died(vcpu: number, end: VmDied["end"], detail: string): Either.Either<never, VmDied> {
    const { consoleTail, vm } = this.#options
    const registers = tryRegisters(vm, vcpu)
    return Either.left(new VmDied({ end, detail, vcpu, registers, consoleTail: consoleTail() }))
  }
}

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

/** Undefined if KVM does not report them, so that the reason of the end is still reported. */
const tryRegisters = (vm: KvmVm, vcpu: number): VcpuRegisters | undefined => {
  try {
    return readRegisters(vm.native, vm.vcpus[vcpu])
  } catch (error) {
    if (error instanceof KvmError) return undefined
    throw error
  }
}
