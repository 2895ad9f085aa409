import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"

/** A stage that cannot be interrupted, such as a file system that hangs, must not keep the user from leaving. */
const PATIENCE_MILLIS = 15_000

/**
 * Those that end a process that does not handle them (signal(7)), and that come from outside. Not SIGUSR1 and SIGPROF, with
 * which Node starts its debugger and profiler, nor those of a fault in the process itself.
 */
const SIGNALS = [
  "SIGINT",
  "SIGTERM",
  "SIGHUP",
  "SIGQUIT",
  "SIGUSR2",
  "SIGALRM",
  "SIGVTALRM",
  "SIGXCPU",
  "SIGIO",
  "SIGPWR"
] as const

let holders = 0
let signalled = false
let interrupt = (): void => undefined

const restoreTerminal = (): void => {
  if (process.stdin.isRaw) process.stdin.setRawMode(false)
}

const onSignal = (): void => {
  if (signalled) {
    restoreTerminal()
    process.exit(130)
  }
  signalled = true
  setTimeout(() => {
    restoreTerminal()
    process.kill(process.pid, "SIGKILL")
  }, PATIENCE_MILLIS).unref()
  interrupt()
}

/**
 * Until the scope closes, a signal interrupts the command instead of ending the process: for what must be put back in
 * order, such as a VM, a raw terminal, the cache or a file that is half written. A second signal ends the process at once.
 * Without a holder signals keep their default action, which ends even a long synchronous walk, search or diff.
 */
export const holdSignals: Effect.Effect<void, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => hold()),
  () => Effect.sync(() => letGo())
)

const hold = (): void => {
  if (holders++ === 0) { for (const signal of SIGNALS) process.on(signal, onSignal) }
}

const letGo = (): void => {
  if (--holders === 0) { for (const signal of SIGNALS) process.off(signal, onSignal) }
}

/** `holdSignals` while `work` runs; what it acquires stays with the caller's scope. */
export const holding = <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(Effect.sync(hold), () => work, () => Effect.sync(letGo))

/** Run the command as this process's work, and end the process with the exit code. */
export const runMain = <A, E>(main: Effect.Effect<A, E>, codeOf: (exit: Exit.Exit<A, E>) => number): void => {
  const alive = setInterval(() => undefined, 2 ** 31 - 1)
  const fiber = Effect.runFork(main)
  interrupt = () => fiber.unsafeInterruptAsFork(fiber.id())
  fiber.addObserver((exit) => {
    clearInterval(alive)
    const code = codeOf(exit)
    if (signalled || code !== 0) process.exit(code)
  })
}
