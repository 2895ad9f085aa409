// Runs in a guest, bundled: prints dumps of the kernel that it runs on, by bpf(2) and by /proc/kcore.
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { writeFileSync } from "node:fs"
import * as GuestMapAccessor from "../../src/bpf/guest/GuestMapAccessor.ts"
import { openLive } from "../../src/bpf/live/OpenLive.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import { LiveHost } from "../../src/host/LiveHost.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { dumpOf } from "./dumpOf.ts"

await Effect.gen(function*() {
  const live = yield* openLive()
  const kernel = yield* GuestKernel.open("/proc/kcore")
  const kcore = yield* Effect.provideService(
    GuestMapAccessor.makeWith(kernel.memory.running ? "racing" : "frozen"),
    GuestKernel,
    kernel
  )
  writeFileSync("live.json", JSON.stringify(yield* dumpOf(live.maps)))
  writeFileSync("kcore.json", JSON.stringify(yield* dumpOf(kcore)))
}).pipe(
  Effect.scoped,
  Effect.provide(Layer.mergeAll(LiveHost.layer, NativeKoffi.layer).pipe(Layer.provide(NodeContext.layer))),
  Effect.runPromise
)
