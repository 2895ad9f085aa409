import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import type * as Scope from "effect/Scope"
import type { FormatError } from "../../core/FormatError.ts"
import type { GuestMemory } from "../../memory/GuestMemory.ts"
import type { ReadyLimits } from "../spec/Limits.ts"
import { inRealTime } from "../spec/RealTime.ts"
import type { Topology } from "../spec/Topology.ts"
import type { VmDied } from "../spec/VmDied.ts"
import {
  type Acceleration,
  type FreezeFailed,
  type FrozenVm,
  GuestExited,
  GuestPanicked,
  InitramfsIncomplete,
  NotReady,
  type Vm,
  type VmEnded,
  type VmExit
} from "../spec/VmEngine.ts"
import type { Console } from "./Console.ts"
import { makeExec } from "./GuestCommands.ts"
import { firstLine } from "./GuestConsole.ts"
import { exitReport, incompleteReport, resizeLine, scriptEnded, upReport } from "./Init.ts"

/** kernel/panic.c `vpanic`, v6.12; behind the time and, where configured, the caller. */
const panic = /^(\[[^\]]*\]\s*)*Kernel panic - not syncing/
/** Longest wait for the end of the script's output once its report is there: a kernel message may have torn the line. */
const SCRIPT_ENDED_WAIT = "5 seconds"

/**
 * VMs that were booted, by engine.
 *
 * @since 0.1.0
 * @category constructors
 */
export const bootCount = Metric.counter("ktstr_vm_boots", {
  description: "VMs that were started",
  incremental: true
})
/**
 * Time from the request to freeze until all CPUs had stopped, in milliseconds, by engine.
 *
 * @since 0.1.0
 * @category reading
 */
export const freezeMillis = Metric.histogram(
  "ktstr_vm_freeze_millis",
  MetricBoundaries.exponential({ start: 0.5, factor: 2, count: 14 }),
  "milliseconds from the request to freeze until all CPUs were stopped"
)

/** How a guest's machine came to its end. */
export interface GuestEnd {
  readonly status: number | undefined
  readonly signal: string | undefined
  readonly detail: string | undefined
}

/** A guest that an engine has started. */
export interface StartedGuest {
  readonly engine: Vm["engine"]
  readonly topology: Topology
  readonly acceleration: Acceleration
  readonly pid: number
  readonly vcpuThreads: Vm["vcpuThreads"]
  /** The guest's output on its console and on its report; both end with the VM. */
  readonly console: Console
  readonly report: Console
  /** Send to the console (0) or the report (1); waits while the guest does not read, for ever once it has ended. */
  readonly send: (port: 0 | 1, bytes: Uint8Array) => Effect.Effect<void>
  readonly end: Effect.Effect<GuestEnd, VmDied>
  readonly exit: Effect.Effect<VmExit>
  readonly memory: Effect.Effect<GuestMemory, FormatError | VmEnded>
  readonly freeze: Effect.Effect<FrozenVm, FreezeFailed | VmEnded, Scope.Scope>
  readonly watchWrites: Vm["watchWrites"]
  readonly limits: ReadyLimits
}

/** Fails with how the VM ended, once it has; a panic on the console is the reason where there is one. */
export const failAtEnd = (
  end: Effect.Effect<GuestEnd, VmDied>,
  console: Console,
  panicked: () => string | undefined = () => console.tail.find((line) => panic.test(line))
): Effect.Effect<never, VmEnded> =>
  Effect.flatMap(end, (how): Effect.Effect<never, GuestExited | GuestPanicked> => {
    const line = panicked()
    return line === undefined ? new GuestExited({ ...how, lastLine: console.lastLine }) : new GuestPanicked({ line })
  })

/** The `Vm` of a started guest, whichever engine runs it. All its waiting is in real time. */
export const bootedVm = (guest: StartedGuest): Effect.Effect<Vm, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { console, report } = guest
    const ended = failAtEnd(guest.end, console)
    const ready = yield* Effect.forkScoped(Effect.raceFirst(reported(report, console, ended), tooLate(guest)))
    const up = Effect.raceFirst(
      Effect.orElse(firstLine(report, upReport), () => ended),
      Effect.zipRight(Fiber.join(ready), Effect.never)
    )
    const exec = makeExec(report, (bytes) => guest.send(1, bytes))
    const tagged = { engine: guest.engine }
    yield* Metric.increment(Metric.tagged(bootCount, "engine", guest.engine))
    const freeze = Effect.gen(function*() {
      const start = performance.now()
      const frozen = yield* guest.freeze
      const millis = performance.now() - start
      yield* Metric.update(Metric.tagged(freezeMillis, "engine", guest.engine), millis)
      yield* Effect.annotateCurrentSpan({ millis })
      return frozen
    })
    return {
      engine: guest.engine,
      topology: guest.topology,
      acceleration: guest.acceleration,
      pid: guest.pid,
      vcpuThreads: inRealTime(guest.vcpuThreads),
      console: console.lines,
      consoleBytes: console.bytes,
      type: (bytes) => inRealTime(Effect.raceFirst(guest.send(0, bytes), ended)),
      resize: (size) => inRealTime(Effect.raceFirst(guest.send(1, resizeLine(size)), ended)),
      consoleTail: Effect.sync(() => console.tail),
      awaitLine: (pattern) => Effect.orElse(firstLine(console, pattern), () => ended),
      awaitReport: (pattern) => Effect.orElse(firstLine(report, pattern), () => ended),
      awaitReady: Fiber.join(ready),
      awaitExit: guest.exit,
      ended,
      exec: (command, options) =>
        inRealTime(Effect.zipRight(up, Effect.raceFirst(exec(command, options), ended))).pipe(
          Effect.withSpan("vm.exec", { attributes: tagged })
        ),
      // a VM that has ended has no memory to look at any more
      memory: inRealTime(Effect.raceFirst(ended, Effect.zipRight(Effect.yieldNow(), guest.memory))),
      freeze: inRealTime(Effect.withSpan(freeze, "vm.freeze", { attributes: tagged })),
      watchWrites: (address, bytes) => inRealTime(guest.watchWrites(address, bytes))
    }
  })

/**
 * The exit status of the init's script, or how the guest failed to give one. The report overtakes what the serial console
 * has still to send, so wait for the console's last words too: then a frozen guest's console is complete.
 */
const reported = (
  report: Console,
  console: Console,
  ended: Effect.Effect<never, VmEnded>
): Effect.Effect<number, VmEnded | InitramfsIncomplete> =>
  Effect.raceFirst(
    firstLine(report, reportOf).pipe(
      Effect.orElse(() => ended),
      Effect.flatMap((line) => {
        const incomplete = incompleteReport.exec(line)?.slice(1).map(Number)
        if (incomplete !== undefined) {
          const [files, bytes, ofFiles, ofBytes] = incomplete
          return new InitramfsIncomplete({ files, bytes, ofFiles, ofBytes })
        }
        const [, what, status] = exitReport.exec(line) ?? []
        const said = what === "exit"
          ? Effect.timeoutOption(Effect.option(firstLine(console, scriptEnded)), SCRIPT_ENDED_WAIT)
          : Effect.void
        return Effect.as(said, Number(status))
      })
    ),
    firstLine(console, panic).pipe(
      Effect.orElse(() => Effect.never),
      Effect.flatMap((line) => new GuestPanicked({ line }))
    )
  )

/** A line that ends the wait for the script; statuses above 255 are none that a shell has. */
const reportOf = (line: string): boolean =>
  incompleteReport.test(line) || Number(exitReport.exec(line)?.[2] ?? NaN) <= 255

/** Fails when the guest has been silent for too long, or has had all its time. */
const tooLate = ({ console, limits, report }: StartedGuest): Effect.Effect<never, NotReady> => {
  const late = (limit: NotReady["limit"]): Effect.Effect<never, NotReady> =>
    Effect.suspend(() =>
      new NotReady({
        limit,
        seconds: Duration.toSeconds(limits.whole),
        silenceSeconds: Duration.toSeconds(limits.silence),
        lastLine: console.lastLine
      })
    )
  const silent: Effect.Effect<never, NotReady> = Effect.suspend(() => {
    const before = console.pushed + report.pushed
    return Effect.flatMap(
      Effect.sleep(limits.silence),
      () => console.pushed + report.pushed > before ? silent : late("silence")
    )
  })
  return Duration.lessThan(limits.silence, limits.whole)
    ? Effect.raceFirst(silent, Effect.zipRight(Effect.sleep(limits.whole), late("whole")))
    : Effect.zipRight(Effect.sleep(limits.whole), late("whole"))
}
