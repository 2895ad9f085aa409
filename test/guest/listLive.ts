// Runs in a guest, bundled: prints the programs and links of the kernel that it runs on, and what its struct_ops maps say.
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { writeSync } from "node:fs"
import { openLive } from "../../src/bpf/live/OpenLive.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"
import { LiveHost } from "../../src/host/LiveHost.ts"

await Effect.gen(function*() {
  const { header, live, maps } = yield* openLive()
  const structs = (yield* maps.list).items.filter(({ type }) => type === "struct_ops")
  const details = yield* Effect.forEach(structs, (info) => Effect.map(maps.reader(info), (reader) => reader.details))
  writeSync(1, JSON.stringify({ header, programs: live.programs, links: live.links, details }))
}).pipe(
  Effect.scoped,
  Effect.provide(Layer.mergeAll(LiveHost.layer, NativeKoffi.layer).pipe(Layer.provide(NodeContext.layer))),
  Effect.runPromise
)
