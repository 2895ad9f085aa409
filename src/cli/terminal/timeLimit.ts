import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { writeSync } from "node:fs"
import { Worker } from "node:worker_threads"
import { koffiPath } from "../../kvm/native/abi/Koffi.ts"
import { type Printable, printable } from "./Printable.ts"

/** The command was not done within `--timeout`. */
export class TimeIsUp extends Schema.TaggedError<TimeIsUp>("ktstr/TimeIsUp")("TimeIsUp", { seconds: Schema.Int }) {
  override get message() {
    return `not done within ${this.seconds} s; raise --timeout, or leave it out`
  }
}

/** A command that is interrupted has this long to put things back in order, and to turn the event loop at all. */
const PATIENCE_MILLIS = 800

/** `shared`: a word that becomes 1 when all is over, and at byte 8 the deadline, CLOCK_REALTIME in milliseconds, a double. */
interface GuardData {
  readonly shared: SharedArrayBuffer
  readonly patience: number
  readonly line: Printable
  readonly koffi: string
}

/** The parts of koffi that the guard needs. */
interface Koffi {
  readonly load: (path: string) => { readonly func: (prototype: string) => (status: number) => void }
}

/**
 * A thread that ends the process with exit code 1 once the deadline, which can move, and the patience are over: the main
 * thread may be in a long walk, in which no timer and no signal handler runs. Programs that we started go with us.
 *
 * Sent to the thread as source text: it uses nothing from outside itself.
 */
const guard = (
  { koffi, line, patience, shared }: GuardData,
  load: { (name: "node:fs"): { readonly writeSync: typeof writeSync }; (path: string): Koffi }
): void => {
  const times = new Float64Array(shared, 8)
  const word = new Int32Array(shared)
  for (;;) {
    const left = times[0] + patience - Date.now()
    if (Atomics.load(word, 0) === 1) return
    if (left <= 0) break
    Atomics.wait(word, 0, 0, Math.min(left, 2 ** 30))
  }
  load("node:fs").writeSync(2, line)
  const quit = (load(koffi) as Koffi).load("libc.so.6").func("void _exit(int status)")
  quit(1)
}

let restart = (_extraMillis: number): void => undefined

/** Give the next part of the command the whole time limit, where there is one, and `extraMillis` more. */
export const restartTimeLimit = (extraMillis = 0): Effect.Effect<void> => Effect.sync(() => restart(extraMillis))

/** Take the time limit from what follows: a user at work, for instance. */
export const liftTimeLimit: Effect.Effect<void> = restartTimeLimit(Infinity)

/** A `TimeIsUp` once the limit is over; the process ends where the event loop does not turn any more. */
const limitOf = (seconds: number): Effect.Effect<Effect.Effect<never, TimeIsUp>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const error = new TimeIsUp({ seconds })
    const over = yield* Deferred.make<never, TimeIsUp>()
    const shared = new SharedArrayBuffer(16)
    const [word, times] = [new Int32Array(shared), new Float64Array(shared, 8)]
    let timer: NodeJS.Timeout | undefined
    const arm = (extraMillis: number): void => {
      clearTimeout(timer)
      const millis = Math.min(seconds * 1000 + extraMillis, 2 ** 31 - 1)
      times[0] = Date.now() + millis
      timer = setTimeout(() => Deferred.unsafeDone(over, error), millis)
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        arm(0)
        restart = arm
        const workerData: GuardData = {
          shared,
          patience: PATIENCE_MILLIS,
          line: printable(`ktstr: ${error.message}\n`),
          koffi: koffiPath()
        }
        const program = `(${guard})(require("node:worker_threads").workerData, require)`
        const thread = new Worker(program, { eval: true, execArgv: [], name: "time limit", workerData })
        thread.on("error", (cause) => Deferred.unsafeDone(over, Effect.die(cause)))
        thread.unref()
      }),
      () =>
        Effect.sync(() => {
          restart = () => undefined
          clearTimeout(timer)
          Atomics.store(word, 0, 1)
          Atomics.notify(word, 0)
        })
    )
    return Deferred.await(over)
  })

/** Run a command within its time limit. */
export const withTimeLimit = <A, E, R>(seconds: number, command: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.flatMap(limitOf(seconds), (over) => Effect.raceFirst(command, over)))
