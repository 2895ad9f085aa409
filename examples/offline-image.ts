/**
 * Maps of a memory image, and the first entries of one of them as JSON: no VM, no agent, no vmlinux.
 *
 *     offline-image IMAGE [MAP]
 */
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Ktstr from "ktstr"
import * as Native from "ktstr/native"

const [image = "", wanted] = process.argv.slice(2)

const program = Effect.gen(function*() {
  const { header, maps } = yield* Ktstr.openImage(image)
  yield* Console.log(`kernel ${header.kernel.release}`)
  if (wanted === undefined) {
    const { items } = yield* maps.list
    for (const map of items) yield* Console.log(`${map.type} ${map.name}`)
    return
  }
  for (const map of yield* maps.find(wanted)) {
    // Schemas of your own give rows of their types; these take any JSON
    yield* maps.entriesAs(map, { key: Schema.Unknown, value: Schema.Unknown }).pipe(
      Stream.take(3),
      Stream.runForEach((entry) => Console.log(JSON.stringify(entry)))
    )
  }
})

program.pipe(
  Effect.scoped,
  Effect.provide(Layer.merge(Native.layer, NodeContext.layer)),
  NodeRuntime.runMain
)
