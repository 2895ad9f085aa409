import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { FormatError } from "../../core/FormatError.ts"
import { formatReason, Reason } from "../../core/Reason.ts"
import { inRealTime } from "../../kvm/spec/RealTime.ts"
import type { FreezeFailed, Vm, VmEnded } from "../../kvm/spec/VmEngine.ts"
import type { NoBtf, NotAKernel } from "../../memory/Errors.ts"
import { GuestKernel } from "../../memory/GuestKernel.ts"
import { raiseWatchdogs, type ShortWatchdog, shortWatchdogs } from "../../sched/scx/RaiseWatchdogs.ts"

/** Time between two looks: well below any watchdog's. */
const LOOK = "50 millis"

/**
 * A guest whose schedulers' watchdogs cannot be raised: its kernel has no sched_ext, or does not tell where their times are.
 *
 * @since 0.1.0
 * @category errors
 */
export class WatchdogNotKept
  extends Schema.TaggedError<WatchdogNotKept>("ktstr/WatchdogNotKept")("WatchdogNotKept", { why: Reason })
{
  override get message() {
    return `the watchdogs of the guest's schedulers stay as they are: ${
      formatReason(this.why)
    }; run without raising them, or boot a kernel with sched_ext and CONFIG_KALLSYMS_ALL`
  }
}

/**
 * Lets the tasks of each scheduler that a running guest loads be runnable for `atLeast` before the kernel ends it, whatever
 * the scheduler asks for: an emulated guest is slow. The guest is stopped for each that asks for less. Fails
 * when the guest has ended or its watchdogs cannot be raised, and does not end otherwise. To be run once the guest's init is up.
 * @param raised given each scheduler whose time was raised
 *
 * @since 0.1.0
 * @category writing
 */
export const keepWatchdogs = (
  vm: Vm,
  atLeast: Duration.DurationInput,
  raised: (watchdog: ShortWatchdog) => void = () => undefined
): Effect.Effect<never, VmEnded | NotAKernel | NoBtf | FormatError | FreezeFailed | WatchdogNotKept> =>
  Effect.gen(function*() {
    const millis = Duration.toMillis(atLeast)
    const kernel = yield* GuestKernel.fromMemory(yield* vm.memory, "memory of the running guest")
    const now = (find: typeof shortWatchdogs) =>
      Effect.suspend(() => {
        kernel.space.flush()
        const short = find(kernel, millis)
        return "kind" in short ? new WatchdogNotKept({ why: short }) : Effect.succeed(short)
      })
    const raise = Effect.zipRight(vm.freeze, now(raiseWatchdogs)).pipe(
      Effect.scoped,
      Effect.map((short) => short.forEach(raised))
    )
    const look = Effect.flatMap(
      now(shortWatchdogs),
      (short): Effect.Effect<void, FormatError | FreezeFailed | VmEnded | WatchdogNotKept> =>
        short.length === 0 ? Effect.asVoid(vm.memory) : raise
    )
    return yield* Effect.forever(Effect.zipRight(look, Effect.sleep(LOOK)))
  }).pipe(inRealTime, Effect.withSpan("Monitor.keepWatchdogs"))
