import * as Effect from "effect/Effect"
import { threadNanos } from "../spec/ThreadTime.ts"
import { Constant, Request, Struct } from "./abi/KvmAbi.ts"
import { succeeded } from "./abi/KvmError.ts"
import type { KvmVm } from "./abi/KvmVm.ts"
import { readRegisters } from "./cpu/Registers.ts"
import type { FreezeRendezvous } from "./FreezeRendezvous.ts"
import type { MachineEnding } from "./MachineEnding.ts"
import { VcpuWord } from "./thread/SharedWords.ts"
import type { VcpuWorker } from "./VcpuWorker.ts"

/**
 * How often to look whether any vCPU has run since the last time, in milliseconds. A guest's own timers, of which the
 * slowest that KVM can make an NMI of is the PIT at 55 ms, have come meanwhile.
 */
const LOOK_MILLIS = 2000
/** RFLAGS.IF */
const INTERRUPTS_ON = 0x200n

/** With interrupt controllers KVM itself halts a vCPU, and never says that nothing can wake it: end such a machine. */
export const watchForHalt = (
  vm: KvmVm,
  workers: ReadonlyArray<VcpuWorker>,
  rendezvous: FreezeRendezvous,
  ending: MachineEnding
): Effect.Effect<void> =>
  Effect.gen(function*() {
    const look = rendezvous.glance(() => {
      if (workers.every(({ id }) => isStuck(vm, id))) ending.halt(workers[0].id)
    })
    for (let before = ""; !ending.over;) {
      yield* Effect.sleep(LOOK_MILLIS)
      const ran = workers.map((worker) => threadNanos(worker.word(VcpuWord.THREAD))).join()
      if (ran === before && !rendezvous.wanted) yield* look
      before = ran
    }
  })

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
