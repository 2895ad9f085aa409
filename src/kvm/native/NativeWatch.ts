import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { makeWriteWatches, notWatched } from "../guest/WriteWatches.ts"
import type { FreezeFailed, Vm, VmEnded } from "../spec/VmEngine.ts"
import { type KvmError, kvmSync } from "./abi/KvmError.ts"
import type { KvmVm } from "./abi/KvmVm.ts"
import { setWatches, type WatchedBytes } from "./cpu/DebugRegisters.ts"
import type { FreezeRendezvous } from "./FreezeRendezvous.ts"
import type { VcpuWorker } from "./VcpuWorker.ts"

/** Watches of a machine's memory by its vCPUs' debug registers. */
export interface NativeWatch {
  /** `Vm.watchWrites`; `ended` fails with how the VM ended, once it has. */
  readonly watchWrites: (
    freeze: Effect.Effect<unknown, FreezeFailed | VmEnded, Scope.Scope>,
    ended: Effect.Effect<never, VmEnded>
  ) => Vm["watchWrites"]
  /** Stop the machine if a vCPU has written to a watched place; to be run at each event of the machine. */
  readonly look: Effect.Effect<void, never, Scope.Scope>
}

/** No place is watched yet. */
export const makeNativeWatch = (
  vm: KvmVm,
  workers: ReadonlyArray<VcpuWorker>,
  rendezvous: FreezeRendezvous
): NativeWatch => {
  const watches = makeWriteWatches()
  const places = new Set<WatchedBytes>()
  return {
    watchWrites: (freeze, ended) => (address, bytes) => {
      const place = { address, bytes }
      const refused = (error: KvmError) => notWatched(address, bytes, error.message, "boot with the engine qemu")
      const apply = Effect.mapError(kvmSync(() => setWatches(vm, [...places])), refused)
      const clear = Effect.zipRight(Effect.sync(() => places.delete(place)), apply)
      return watches.watch(address, bytes, {
        freeze,
        keep: rendezvous.keep,
        set: Effect.zipRight(Effect.sync(() => places.add(place)), apply).pipe(
          Effect.tapError(() => Effect.ignore(clear))
        ),
        clear,
        lost: ended
      })
    },
    look: Effect.suspend(() => {
      // each of them, not the first that has
      if (workers.filter((worker) => worker.takeHit()).length === 0) return Effect.void
      const letGo = rendezvous.keep()
      return Effect.scoped(rendezvous.freeze).pipe(
        Effect.ignore, // who waits for the write freezes the machine, and is told
        Effect.zipRight(Effect.sync(watches.stands)),
        Effect.ensuring(letGo),
        Effect.forkScoped
      )
    })
  }
}
