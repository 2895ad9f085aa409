// Runs in a guest, bundled: prints the dump of the kernel that it runs on.
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { writeSync } from "node:fs"
import { openLive } from "../../src/bpf/live/OpenLive.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import { LiveHost } from "../../src/host/LiveHost.ts"
import { dumpOf } from "./dumpOf.ts"

await Effect.gen(function*() {
  const live = yield* openLive()
  writeSync(1, JSON.stringify(yield* dumpOf(live.maps)))
}).pipe(
  Effect.scoped,
  Effect.provide(Layer.mergeAll(LiveHost.layer, NativeKoffi.layer).pipe(Layer.provide(NodeContext.layer))),
  Effect.runPromise
)
