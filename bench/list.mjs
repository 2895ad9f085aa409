// Lists the maps of a memory image, after the attach: milliseconds, in a fresh process.
import * as Effect from "effect/Effect"
import { GuestMapAccessor } from "ktstr/bpf"
import { GuestKernel } from "ktstr/memory"
import * as Native from "ktstr/native"

const [path] = process.argv.slice(2)
await Effect.gen(function*() {
  const kernel = yield* GuestKernel.open(path, {})
  const start = performance.now()
  const { list } = yield* Effect.provideService(GuestMapAccessor.make, GuestKernel, kernel)
  const { items, problems } = yield* list
  const ms = performance.now() - start
  if (problems.length > 0) throw new Error(problems.join("\n"))
  console.log(JSON.stringify({ ms, maps: items.length }))
}).pipe(Effect.scoped, Effect.provide(Native.layer), Effect.runPromise)
