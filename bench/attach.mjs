// From a memory image's path to the first typed entry of a map: milliseconds, in a fresh process.
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { openImage } from "ktstr"
import * as Native from "ktstr/native"

const [path, name] = process.argv.slice(2)
const start = performance.now()
await Effect.gen(function*() {
  const { maps } = yield* openImage(path)
  const [map] = yield* maps.find(name)
  const first = yield* Stream.runCollect(Stream.take(maps.entries(map), 1))
  const ms = performance.now() - start
  if (Chunk.unsafeHead(first).value._tag !== "struct") throw new Error("the entry is not typed")
  console.log(JSON.stringify({ ms }))
}).pipe(Effect.scoped, Effect.provide(Native.layer), Effect.runPromise)
