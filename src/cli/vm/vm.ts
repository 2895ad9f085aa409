import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { text } from "node:stream/consumers"
import { parseKernelId } from "../../core/kernels/KernelId.ts"
import { type BootOptions, prepare } from "../../Ktstr.ts"
import { upReport } from "../../kvm/guest/Init.ts"
import { type Vm, VmEngine } from "../../kvm/spec/VmEngine.ts"
import { keepWatchdogs } from "../../monitor/moments/KeepWatchdogs.ts"
import type { Machine, Script } from "../source/options.ts"
import { bootOptions, engineOf, Live, PREPARE_MILLIS } from "../source/snapshot.ts"
import { copyWhile } from "../terminal/copyWhile.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { exitCode, FileUnreadable, GuestStatus, report, UsageError } from "../terminal/exit.ts"
import { writeConsole } from "../terminal/Output.ts"
import { holdSignals } from "../terminal/signals.ts"
import * as Stages from "../terminal/Stages.ts"
import { duration } from "../terminal/Stages.ts"
import { type OutputError, writeMessage } from "../terminal/Streams.ts"
import { table } from "../terminal/Table.ts"
import { liftTimeLimit, restartTimeLimit } from "../terminal/timeLimit.ts"
import { type FailureConfig, NO_DUMP, ON_FAILURE_WORDS, wantedDump, withDump } from "./onFailure.ts"
import { takeSnapshots, wantedSnapshots } from "./snapshots.ts"
import { rawTerminal, terminalSize } from "./vmTerminal.ts"

/** A guest that has nothing more to say for this long, after it has reported its end, does not end by itself. */
const QUIET = "3 seconds"

interface Config extends Machine {
  readonly dmesg: boolean
}

interface RunConfig extends Config, FailureConfig {
  /** When to write its state while it runs, and where to. */
  readonly snapshot: ReadonlyArray<string>
  readonly snapshots: Option.Option<string>
  readonly watchdog: Option.Option<Duration.Duration>
}

interface Kernels {
  readonly kernel: ReadonlyArray<string>
}

/** Boot, run the commands with the console on stdout, and end as they did; several kernels one after the other. */
export const run = ({ kernel: kernels, ...config }: Omit<RunConfig, "kernel"> & Kernels & Script) => {
  const optionsFor = (kernel: Option.Option<string>) =>
    Effect.map(optionsOf({ ...config, kernel }, config), (options): BootOptions =>
      Option.isNone(config.onFailure)
        ? { ...options, powerOff: true }
        : { ...options, powerOff: "byHost", cmdline: `${ON_FAILURE_WORDS} ${options.cmdline ?? ""}` })
  return Effect.gen(function*() {
    if (kernels.length < 2) {
      yield* Effect.scoped(runToEnd(yield* optionsFor(Option.fromIterable(kernels)), config))
      return
    }
    if (Option.isSome(config.console)) {
      return yield* new UsageError({ problem: "--console keeps one guest's console: give one --kernel with it" })
    }
    if (Option.isSome(config.onFailure)) {
      return yield* new UsageError({ problem: "--on-failure writes one guest's dump: give one --kernel with it" })
    }
    if (Option.isSome(config.snapshots)) {
      return yield* new UsageError({ problem: "--snapshots has one guest's states: give one --kernel with it" })
    }
    for (const kernel of kernels) yield* parseKernelId(kernel)
    const all = yield* Effect.forEach(kernels, (kernel) => optionsFor(Option.some(kernel)))
    const ends: Array<{ readonly kernel: string; readonly code: number }> = []
    for (const options of all) {
      writeMessage(`  ${options.kernel}\n`)
      const end = yield* Effect.either(Effect.scoped(runToEnd(options, config)))
      if (Either.isLeft(end)) yield* report(Cause.fail(end.left))
      ends.push({ kernel: options.kernel, code: Either.isLeft(end) ? exitCode(Exit.fail(end.left)) : 0 })
      if (Either.isRight(end) && !end.right) break // nobody reads stdout any more
    }
    writeMessage(table(["kernel", "exit code"], ends.map(({ code, kernel }) => [kernel, `${code}`]), [1]))
    const status = ends.map(({ code }) => code).find((code) => code !== 0)
    if (status !== undefined) return yield* new GuestStatus({ status })
  }).pipe(Effect.provide(Live), Effect.provide(Stages.layer))
}

/** Boot, and tie a shell in the guest to the terminal; without one, run the commands that stdin has. */
export const shell = (config: Config) =>
  Effect.gen(function*() {
    const options = yield* optionsOf(config, { exec: Option.none(), execFile: Option.none() })
    yield* process.stdin.isTTY ? interact(options, config) : runToEnd(
      { ...options, script: yield* commands, powerOff: true },
      { ...config, ...NO_DUMP, snapshot: [], snapshots: Option.none(), watchdog: Option.none() }
    )
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

/** kernel/printk, v6.12: 7 is all but debugging messages. 1 is what comes with a panic, which tells it from other ends. */
const optionsOf = ({ dmesg, ...machine }: Config, script: Script) =>
  Effect.map(
    bootOptions({ ...machine, ...script }, "say which kernel to boot: --kernel ID, or KTSTR_KERNEL"),
    (options): BootOptions => ({ ...options, cmdline: `loglevel=${dmesg ? 7 : 1} ${options.cmdline ?? ""}` })
  )

const commands = Effect.tryPromise({
  try: () => text(process.stdin),
  catch: (error) =>
    new FileUnreadable({
      what: "the commands on stdin",
      why: error instanceof Error ? error.message : String(error),
      hint: "give a terminal, or a pipe or file with shell commands"
    })
})

/** Boot, and run the commands to their end: true, or false when nobody reads stdout any more. */
const runToEnd = (options: BootOptions, config: Omit<RunConfig, keyof Config> & Pick<RunConfig, "engine">) =>
  Effect.gen(function*() {
    yield* holdSignals
    const wanted = yield* wantedSnapshots(config)
    const dump = yield* wantedDump(config)
    yield* restartTimeLimit(PREPARE_MILLIS)
    const { spec } = yield* prepare(options)
    const vm = yield* Effect.flatMap(VmEngine, (engine) => engine.boot(spec))
    const { rest, unread } = yield* consoleToStdout(vm)
    const written = wanted === undefined ? Effect.void : yield* takeSnapshots(vm, options.kernel, wanted)
    if (Option.isSome(config.watchdog)) yield* Effect.forkScoped(raiseWatchdogs(vm, config.watchdog.value))
    const ready = withDump(readyOrOver(vm, rest), vm, options.kernel, dump)
    const status = yield* Effect.raceFirst(ready, Effect.as(unread, undefined))
    yield* rest
    yield* written
    if (status !== undefined && status !== 0) return yield* new GuestStatus({ status })
    return status !== undefined
  }).pipe(Effect.provide(engineOf(config)))

/** From the init's start to the guest's end. */
const raiseWatchdogs = (vm: Vm, atLeast: Duration.Duration) =>
  Effect.zipRight(
    vm.awaitReport(upReport),
    keepWatchdogs(vm, atLeast, ({ fromMillis, scheduler, toMillis }) =>
      writeMessage(
        `  ${escapeLine(scheduler)}: its watchdog was raised from ${duration(fromMillis)} to ${duration(toMillis)}\n`
      ))
  ).pipe(
    Effect.catchTags({ GuestExited: () => Effect.void, GuestPanicked: () => Effect.void, VmDied: () => Effect.void }),
    Effect.catchAll((error) => Effect.sync(() => writeMessage(`  --watchdog: ${escapeLine(error.message)}\n`)))
  )

const interact = (options: BootOptions, { engine }: Config) =>
  Effect.gen(function*() {
    const { COLORTERM: colorTerm, TERM: term } = process.env
    const size = terminalSize()
    yield* holdSignals
    yield* restartTimeLimit(PREPARE_MILLIS)
    const { release, spec } = yield* prepare({ ...options, shell: { colorTerm, size, term } })
    writeMessage(`  boot ${release}; exit or Ctrl-D ends the shell and stops the VM; Ctrl-A x stops it immediately\n`)
    const vm = yield* Effect.flatMap(VmEngine, (engine) => engine.boot(spec))
    const { rest, unread } = yield* consoleToStdout(vm)
    const session = Effect.gen(function*() {
      yield* readyOrOver(vm, rest)
      yield* liftTimeLimit
      yield* Effect.scoped(Effect.raceFirst(
        Effect.as(rawTerminal(vm, size), "left" as const),
        // who leaves a shell switches its VM off
        Effect.catchIf(vm.ended, (end) => end._tag === "GuestExited" && end.status === 0, () => rest)
      )).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => {
            if (Exit.isSuccess(exit) && exit.value !== "left") return
            writeMessage("\n") // the shell's line was not finished
          })
        )
      )
    })
    yield* Effect.raceFirst(session, unread)
  }).pipe(Effect.provide(engineOf({ engine })))

/** `awaitReady`; the console of a guest that came to its end without is shown to the end. */
const readyOrOver = (vm: Vm, rest: Effect.Effect<void, OutputError>) =>
  Effect.tapError(vm.awaitReady, (error) => error._tag === "NotReady" ? Effect.void : rest)

/**
 * Copy the console to stdout as it comes. `rest` waits for its end, or until a guest that does not end is quiet;
 * `unread` for a stdout whose reader has gone away.
 */
const consoleToStdout = (vm: Vm) =>
  Effect.gen(function*() {
    let pieces = 0
    let writing = false
    const write = (piece: Uint8Array): Effect.Effect<boolean, OutputError> =>
      Effect.suspend(() => {
        pieces++
        writing = true
        return Effect.tap(writeConsole(piece), () => Effect.sync(() => (writing = false)))
      })
    const copying = yield* Effect.forkScoped(copyWhile(vm.consoleBytes, write))
    const quiet: Effect.Effect<void> = Effect.suspend(() => {
      const before = pieces
      return Effect.flatMap(Effect.sleep(QUIET), () => writing || pieces > before ? quiet : Effect.void)
    })
    return {
      rest: Effect.raceFirst(Effect.asVoid(Fiber.join(copying)), quiet),
      unread: Effect.flatMap(Fiber.join(copying), (read) => read ? Effect.never : Effect.void)
    }
  })
