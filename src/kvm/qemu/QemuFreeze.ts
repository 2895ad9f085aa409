import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { FormatError } from "../../core/FormatError.ts"
import { type BackingFile, GuestMemory } from "../../memory/GuestMemory.ts"
import { ramRanges, regionsOf } from "../spec/MemoryLayout.ts"
import { inRealTime } from "../spec/RealTime.ts"
import { FreezeFailed, type FrozenVm } from "../spec/VmEngine.ts"
import { parseRegisters } from "./QemuRegisters.ts"
import { endedOr, type Qmp, QmpError } from "./Qmp.ts"

/** Longest wait for QEMU to say that the guest moves again. */
const THAW_SECONDS = 1

/** A piece of what QEMU shares with us: the backend `name` of `size` bytes, mapped as `windows` of `windowBytes` in order. */
export interface SharedRam {
  readonly name: string
  readonly size: number
  readonly windows: ReadonlyArray<Uint8Array>
  readonly windowBytes: number
  /** Its bytes again. */
  readonly file: BackingFile
}

/** The answer to `query-status`. */
export const Status = Schema.Struct({ running: Schema.Boolean, status: Schema.String })

/** Guest memory in the layout that QEMU has now. */
export type LayOut = Effect.Effect<GuestMemory, QmpError | FormatError>

/**
 * Guest memory by QEMU's word on where it lies: firmware changes that. One for each layout there was, all emptied when the
 * scope closes, before the mapping ends under them.
 */
export const makeLayOut = (qmp: Qmp, ram: ReadonlyArray<SharedRam>): Effect.Effect<LayOut, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => new Map<string, GuestMemory>()),
      (known) => Effect.sync(() => known.forEach((memory) => memory.release()))
    ),
    (known): LayOut =>
      Effect.gen(function*() {
        const mtree = yield* qmp.execute("human-monitor-command", Schema.String, { "command-line": "info mtree -f" })
        const had = known.get(mtree)
        if (had !== undefined) return had
        const regions = yield* Effect.forEach(
          ram,
          ({ file, name, size, windowBytes, windows }) =>
            Effect.map(ramRanges(mtree, name, size), (ranges) => regionsOf(ranges, windows, windowBytes, file))
        )
        const made = yield* GuestMemory.make(regions.flat(), { subject: "the guest", writable: true })
        const memory = known.get(mtree) ?? made // another freeze may have been quicker
        known.set(mtree, memory)
        return memory
      })
  )

/**
 * `Vm.memory` over a monitor.
 * @param ended fails with how the VM ended, once it has
 */
export const makeMemory = <E>(
  layOut: LayOut,
  ended: Effect.Effect<never, E>,
  limit: Duration.Duration
): Effect.Effect<GuestMemory, FormatError | E> =>
  Effect.catchTag(
    layOut.pipe(Effect.timeoutFail({
      duration: limit,
      onTimeout: () =>
        new QmpError({
          command: "info mtree -f",
          reason: "unreadable",
          detail: `no answer within ${Duration.toSeconds(limit)} s: is it stopped?`
        })
    })),
    "QmpError",
    ({ detail, reason }): Effect.Effect<never, FormatError | E> => {
      const failure = new FormatError({
        format: "memory layout",
        subject: "QEMU's monitor",
        offset: 0,
        expected: `one, not ${detail}`
      })
      return reason === "closed" ? endedOr(ended, failure) : failure
    }
  )

/** How a guest is frozen, and kept so. */
export interface Freezer<E> {
  readonly freeze: Effect.Effect<FrozenVm, FreezeFailed | E, Scope.Scope>
  /** Keeps a guest that has been stopped so from this call on, until what it gives is run, as often as it is called. */
  readonly keep: () => Effect.Effect<void>
}

/**
 * `Vm.freeze` over a monitor: `stop`, then the state confirmed, then guest memory in the layout that QEMU has now. Scopes
 * are counted; when the last closes the guest is let run. Commands of one freeze and of one thaw do not mix.
 * @param ended fails with how the VM ended, once it has
 * @param resume lets the guest run
 */
export const makeFreezer = <E>(
  qmp: Qmp,
  layOut: LayOut,
  ended: Effect.Effect<never, E>,
  limit: Duration.Duration,
  resume: Effect.Effect<unknown, QmpError>
): Freezer<E> => {
  const alone = Effect.unsafeMakeSemaphore(1).withPermits(1)
  const seconds = Duration.toSeconds(limit)
  let holders = 0

  // counted at once: waiting for its turn may be given up, having let go may not
  const thaw = Effect.suspend(() => {
    holders--
    return alone(Effect.suspend(() => holders > 0 ? Effect.void : resume))
  }).pipe(
    // a finalizer cannot be interrupted, its waiting can; a monitor that does not answer now has still been told
    Effect.interruptible,
    Effect.timeout(Duration.seconds(THAW_SECONDS)),
    inRealTime, // whichever clock the fiber has that closes the scope
    Effect.ignore
  )
  const stopped = qmp.execute("query-status", Status).pipe(
    Effect.repeat({ until: ({ running }) => !running, schedule: Schedule.spaced("5 millis") })
  )
  const registers = qmp.execute("human-monitor-command", Schema.String, { "command-line": "info registers -a" }).pipe(
    Effect.flatMap(parseRegisters),
    Effect.mapError((error) => new FreezeFailed({ why: error.message }))
  )
  const stop = alone(Effect.gen(function*() {
    yield* qmp.execute("stop", Schema.Unknown)
    yield* stopped
    const takenAt = yield* Clock.currentTimeMillis
    return { memory: yield* layOut, takenAt, registers }
  })).pipe(
    Effect.timeoutFail({
      duration: limit,
      onTimeout: () => new FreezeFailed({ seconds, why: "QEMU's monitor has not confirmed it" })
    })
  )
  const failed = (
    error: FreezeFailed | QmpError | FormatError
  ): Effect.Effect<never, FreezeFailed | E> =>
    error._tag === "FreezeFailed"
      ? error
      : error._tag === "QmpError" && error.reason === "closed"
      ? endedOr(ended, new FreezeFailed({ why: error.message }))
      : new FreezeFailed({ why: error.message })

  const keep = () => {
    holders++
    return thaw
  }
  return {
    freeze: Effect.zipRight(
      Effect.acquireRelease(Effect.sync(keep), (letGo) => letGo),
      Effect.catchAll(stop, failed)
    ),
    keep
  }
}
