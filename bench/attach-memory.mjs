// Boots a 3 GiB guest that uses little of it, freezes it and lists its maps: the bytes of shared memory that the guest's
// memory takes after that, beside those that it took before. What the search reads without need, the host has to allocate.
import * as Effect from "effect/Effect"
import { boot, freezeAndAttach } from "ktstr"
import { readdirSync, readlinkSync, statSync } from "node:fs"
import { Host, KERNEL } from "./images.mjs"

/** Allocated bytes of the memory files of a process. */
const allocated = (pid) =>
  readdirSync(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`)
    .filter((path) => readlinkSync(path).startsWith("/memfd:ktstr-ram"))
    .map((path) => statSync(path).blocks * 512)
    .reduce((sum, bytes) => sum + bytes, 0)

await Effect.gen(function*() {
  const vm = yield* boot({ kernel: KERNEL, memoryMib: 3072, timeout: "5 minutes" })
  const { after, before } = yield* Effect.scoped(Effect.gen(function*() {
    yield* vm.freeze // nested: nothing of the guest runs between the two looks
    const before = allocated(vm.pid)
    const { maps } = yield* freezeAndAttach(vm, KERNEL)
    yield* maps.list
    return { before, after: allocated(vm.pid) }
  }))
  if (before < 2 ** 20) throw new Error(`the guest's memory was not found: ${before} bytes`)
  console.log(JSON.stringify({ beforeMB: before / 2 ** 20, afterMB: after / 2 ** 20, ratio: after / before }))
}).pipe(Effect.scoped, Effect.provide(Host), Effect.runPromise)
