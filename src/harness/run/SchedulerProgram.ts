import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { basename, dirname } from "node:path"
import type { ExpectedEnd } from "../claim/ExpectedEnd.ts"
import type { GuestLimits } from "../scenario/GuestLimits.ts"
import { GuestTime, nanosOf } from "../scenario/GuestTime.ts"
import { payloadProgram } from "../scenario/PlanScenario.ts"
import type { GivenScheduler } from "./AssembleRun.ts"
import { ProgramInvalid, readProgram } from "./ProgramOfHost.ts"

/**
 * A scheduler to test: a program that attaches it and stays.
 *
 * @since 0.1.0
 * @category models
 */
export interface Scheduler {
  /** Its name in reports. */
  readonly name: string
  /** The path of its program on this host. */
  readonly binary: string
  readonly args?: ReadonlyArray<string>
  /** The beginning of its name in /sys/kernel/sched_ext/root/ops; the program's name without `scx_`. */
  readonly ops?: string
  /** Longest time by the guest's clock that it may take to attach; "10 seconds", in exact guests "20 seconds". */
  readonly attachWithin?: string
  /** How it must end, where the test is that it does: then its stay and the work are not judged, and this is. */
  readonly expected?: ExpectedEnd
}

/** Look at a scheduler's program: it is there, and a guest can execute it. It attaches within `limits` unless it says otherwise. */
export const readScheduler = (
  scheduler: Scheduler,
  limits: Pick<GuestLimits, "attach">
): Effect.Effect<GivenScheduler, ProgramInvalid> =>
  Effect.gen(function*() {
    const { path, sha256 } = yield* readProgram("scheduler", scheduler.binary)
    const invalid = (why: string, hint: string) => new ProgramInvalid({ role: "scheduler", path, why, hint })
    if (basename(path) === dirname(payloadProgram("any"))) {
      return yield* invalid("a guest's payloads lie in a directory of that name", "rename the program")
    }
    const within = scheduler.attachWithin
    if (within !== undefined && !Schema.is(GuestTime)(within)) {
      return yield* invalid(
        `attachWithin is ${JSON.stringify(within)}`,
        "give a time of at most an hour, as in \"30 seconds\""
      )
    }
    if ([...scheduler.args ?? [], scheduler.ops ?? ""].some((text) => text.includes("\0"))) {
      return yield* invalid(
        "an argument of it, or its name in sysfs, has a NUL",
        "take it out: the guest would end there"
      )
    }
    return {
      name: scheduler.name,
      path,
      arguments: scheduler.args ?? [],
      sha256,
      ops: scheduler.ops ?? basename(path).replace(/^scx_/, ""),
      expected: scheduler.expected ?? null,
      attachLimit: within === undefined ? limits.attach : nanosOf(within)
    }
  })
