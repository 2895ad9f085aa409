// From a memory image's path to the first typed entry of a map, and the parts of that: milliseconds, in a fresh process.
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { openImage } from "ktstr"
import * as Native from "ktstr/native"

/** Spans of the pipeline by the part that they are. */
const PARTS = {
  "MemoryImage.openMemoryImage": "map",
  "GuestKernel.locate": "find",
  "GuestKernel.kallsyms": "kallsyms",
  "GuestKernel.btf": "btf",
  "GuestMapAccessor.make": "maps"
}
const parts = {}
const tracer = Tracer.make({
  span: (name, parent, context, links, startTime, kind) => {
    const start = performance.now()
    return {
      _tag: "Span",
      name,
      spanId: name,
      traceId: "attach",
      parent,
      context,
      links,
      kind,
      sampled: true,
      status: { _tag: "Started", startTime },
      attributes: new Map(),
      attribute: () => {},
      event: () => {},
      addLinks: () => {},
      end: () => {
        if (PARTS[name] !== undefined) parts[PARTS[name]] = performance.now() - start
      }
    }
  },
  context: (run) => run()
})

const [path, name] = process.argv.slice(2)
const start = performance.now()
await Effect.gen(function*() {
  const { maps } = yield* openImage(path)
  const opened = performance.now()
  const [map] = yield* maps.find(name)
  const first = yield* Stream.runCollect(Stream.take(maps.entries(map), 1))
  const end = performance.now()
  if (Chunk.unsafeHead(first).value._tag !== "struct") throw new Error("the entry is not typed")
  console.log(JSON.stringify({ ms: end - start, ...parts, first: end - opened }))
}).pipe(Effect.scoped, Effect.withTracer(tracer), Effect.provide(Native.layer), Effect.runPromise)
