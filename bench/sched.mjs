// All of the scheduler's state of a memory image that is attached already: milliseconds of the first reading, in a fresh
// process, and how many threads it has.
import * as Effect from "effect/Effect"
import { GuestKernel } from "ktstr/memory"
import * as Native from "ktstr/native"
import { readSched } from "ktstr/sched"

const [path] = process.argv.slice(2)
await Effect.gen(function*() {
  const kernel = yield* GuestKernel.open(path, {})
  const start = performance.now()
  const { tasks } = readSched(kernel)
  const ms = performance.now() - start
  if ("kind" in tasks) throw new Error(tasks.text)
  console.log(JSON.stringify({ ms, threads: tasks.length }))
}).pipe(Effect.scoped, Effect.provide(Native.layer), Effect.runPromise)
