import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { FormatError } from "../../core/Errors.ts"
import { inRealTime } from "../../kvm/spec/RealTime.ts"
import type { FreezeFailed, Vm, VmEnded } from "../../kvm/spec/VmEngine.ts"
import { GuestKernel } from "../../memory/GuestKernel.ts"
import { raiseWatchdogs, type ShortWatchdog, shortWatchdogs } from "../../sched/scx/RaiseWatchdogs.ts"
import type { MonitorError } from "../Monitor.ts"

/** Time between two looks: well below any watchdog's. */
const LOOK = "50 millis"

/**
 * Lets the tasks of each scheduler that a running guest loads be runnable for `atLeast` before the kernel ends it, whatever
 * the scheduler asks for: an emulated guest is slow. The guest is stopped for each that asks for less. Fails
 * when the guest has ended, and does not end otherwise. To be run once the guest's init is up.
 * @param raised given each scheduler whose time was raised
 *
 * @since 0.1.0
 * @category writing
 */
export const keepWatchdogs = (
  vm: Vm,
  atLeast: Duration.DurationInput,
  raised: (watchdog: ShortWatchdog) => void = () => undefined
): Effect.Effect<never, MonitorError | FreezeFailed> =>
  Effect.gen(function*() {
    const millis = Duration.toMillis(atLeast)
    const kernel = yield* GuestKernel.fromMemory(yield* vm.memory, "memory of the running guest")
    const raise = Effect.zipRight(
      vm.freeze,
      Effect.sync(() => {
        kernel.space.flush()
        raiseWatchdogs(kernel, millis).forEach(raised)
      })
    ).pipe(Effect.scoped)
    const look = Effect.suspend((): Effect.Effect<void, FormatError | FreezeFailed | VmEnded> => {
      kernel.space.flush()
      return shortWatchdogs(kernel, millis).length === 0 ? Effect.asVoid(vm.memory) : raise
    })
    return yield* Effect.forever(Effect.zipRight(look, Effect.sleep(LOOK)))
  }).pipe(inRealTime, Effect.withSpan("Monitor.keepWatchdogs"))
