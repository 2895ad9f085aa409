import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Worker } from "node:worker_threads"

/** How long a thread without a vCPU waits for another, in milliseconds. */
const IDLE_MILLIS = 1000

/** The threads without a vCPU, each with what will end it. */
const idle = new Map<Worker, NodeJS.Timeout | undefined>()

/**
 * A thread whose vCPU has ended, to run another, or one that `make` starts. Threads are used again because koffi never
 * frees what it maps for a thread (3 MiB of addresses, seen with koffi 3.3): a program that boots VMs one after another
 * would run out of mappings some day. One that is not wanted again soon ends.
 */
export const takeThread = (make: () => Worker): Worker => {
  for (const [worker, timer] of idle) {
    clearTimeout(timer)
    idle.delete(worker)
    worker.ref()
    return worker
  }
  return make()
}

/** Keep a thread that does nothing for the next that is wanted; it does not keep the process. */
export const giveBackThread = (worker: Worker): void => {
  worker.unref()
  clearTimeout(idle.get(worker)) // given back already: two timers would leave one behind when it is taken
  const timer = setTimeout(() => {
    idle.delete(worker)
    void worker.terminate()
  }, IDLE_MILLIS)
  idle.set(worker, timer.unref())
}

/** Start threads that are wanted soon: it takes each as long as all else that is done until then. */
export const readyThreads = (count: number, make: () => Worker): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() =>
      Array.from({ length: Math.max(0, count - idle.size) }, () => {
        const worker = make()
        // who takes it hears of what goes wrong; one that has ended by then is not taken
        worker.on("error", () => {}).on("exit", () => idle.delete(worker)).unref()
        idle.set(worker, undefined)
        return worker
      })
    ),
    (threads) => Effect.sync(() => threads.forEach((worker) => idle.has(worker) && giveBackThread(worker)))
  ))
