import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { recordFailure } from "../../Ktstr.ts"
import { FreezeFailed, type FrozenVm, type Vm } from "../../kvm/spec/VmEngine.ts"
import { GuestKernel } from "../../memory/GuestKernel.ts"
import type { GuestMemory } from "../../memory/GuestMemory.ts"
import type { Failure } from "../../monitor/Failure.ts"
import type { CapturedFailure } from "../../monitor/FailureDump.ts"
import { FailureSigns } from "../../monitor/FailureSigns.ts"
import type { RunRecord } from "../claim/RunRecord.ts"
import type { PreparedRun } from "./PrepareRun.ts"

/** Time between two looks at the running guest's memory. A busy exact guest takes ten times as long for all that it does. */
const LOOK = { exact: "50 millis", other: "10 millis" } as const

/** Longest wait for a QEMU to stop. */
const STOP = "10 seconds"

/** A guest that stands: its memory, and no registers. */
const standing = (memory: GuestMemory, why: string): FrozenVm => ({
  memory,
  takenAt: Date.now(),
  registers: new FreezeFailed({ why })
})

const signal = (pid: number, name: "SIGSTOP" | "SIGCONT"): Effect.Effect<void, FreezeFailed> =>
  Effect.try({ try: () => void process.kill(pid, name), catch: () => new FreezeFailed({ why: "its QEMU has ended" }) })

/** Whether no thread of a process runs: proc_pid_stat(5), the letter behind the name in parentheses. */
const isStopped = (pid: number): boolean => {
  const threads = `/proc/${pid}/task`
  return readdirSync(threads).every((thread) => /\) T/.test(readFileSync(join(threads, thread, "stat"), "utf8")))
}

/**
 * An exact guest, stopped by a signal to its QEMU: unlike after `Vm.freeze`, where the CPUs' turns begin anew, it goes on as if
 * nothing had been, and its run is the same each time.
 */
const pausedBySignal = ({ pid }: Vm, memory: GuestMemory): Vm["freeze"] =>
  Effect.gen(function*() {
    yield* Effect.acquireRelease(signal(pid, "SIGSTOP"), () => Effect.ignore(signal(pid, "SIGCONT")))
    yield* Effect.try({ try: () => isStopped(pid), catch: () => new FreezeFailed({ why: "its QEMU has ended" }) }).pipe(
      Effect.repeat({ until: (stopped) => stopped, schedule: Schedule.spaced("1 millis") }),
      Effect.timeoutFail({
        duration: STOP,
        onTimeout: () => new FreezeFailed({ why: "its QEMU does not stop", seconds: 10 })
      })
    )
    return standing(memory, "its QEMU was stopped whole, so that the exact run is not disturbed")
  })

const isExact = ({ mode: { mode } }: PreparedRun): boolean => mode === "exact" || mode === "exact-coarse"

/** Read all of a guest: one that runs is stopped for that, one that has ended is read as it left its memory. */
const capture = (run: PreparedRun, vm: Vm, memory: GuestMemory, failure: Failure, runs: boolean) => {
  const freeze = !runs
    ? Effect.sync(() => standing(memory, "the guest has ended"))
    : isExact(run)
    ? pausedBySignal(vm, memory)
    : vm.freeze
  return recordFailure({ ...vm, memory: Effect.succeed(memory), freeze }, run.kernel.id, failure)
}

const now = (): string => new Date().toISOString()

/**
 * The watch over a running guest: at the first sign that its kernel or its scheduler failed the guest is stopped and read.
 * What it gives asks for what was read; undefined: there was no sign.
 */
export const watchRun = (
  run: PreparedRun,
  vm: Vm,
  memory: GuestMemory
): Effect.Effect<Effect.Effect<CapturedFailure | undefined>, never, Scope.Scope> =>
  Effect.gen(function*() {
    let seen = false
    const watch = yield* Effect.forkScoped(Effect.gen(function*() {
      const signs = new FailureSigns(yield* GuestKernel.fromMemory(memory, "memory of the running guest"))
      for (;;) {
        const sign = signs.look()
        seen = sign !== undefined
        if (sign !== undefined) return yield* capture(run, vm, memory, { ...sign, seenIn: "memory", at: now() }, true)
        yield* Effect.sleep(isExact(run) ? LOOK.exact : LOOK.other)
      }
    }))
    return Effect.suspend(() =>
      seen ? Effect.option(Fiber.join(watch)) : Effect.as(Fiber.interrupt(watch), Option.none<CapturedFailure>())
    ).pipe(Effect.map(Option.getOrUndefined))
  })

/** All of the guest of a run that failed by its verdict alone, as it is at the end. */
export const captureAtEnd = (
  run: PreparedRun,
  vm: Vm,
  memory: GuestMemory | undefined,
  { end, verdict: { details } }: RunRecord
): Effect.Effect<CapturedFailure> => {
  const [{ label, observed }] = details
  const text = observed === null ? label : `${label}: ${observed}`
  const failure: Failure = { kind: "verdict", text, seenIn: "host", at: now() }
  return memory === undefined
    ? recordFailure(vm, run.kernel.id, failure)
    : capture(run, vm, memory, failure, end.how === "time limit" || end.how === "starved")
}
