/**
 * `endless IMAGE MAP`: an app that reads entries without end. Prints "reading" when a timer has fired meanwhile, and "released"
 * when a signal has ended it and the image's scope has closed.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import * as Ktstr from "../../../src/Ktstr.ts"

const [image, name] = process.argv.slice(2)
setTimeout(() => process.stdout.write("reading\n"), 20)
Effect.gen(function*() {
  yield* Effect.addFinalizer(() => Effect.sync(() => process.stdout.write("released\n")))
  const { maps } = yield* Ktstr.openImage(image)
  const [map] = yield* maps.find(name)
  yield* Effect.forever(Stream.runDrain(maps.entries(map)))
}).pipe(Effect.scoped, Effect.provide(NativeKoffi.layer), NodeRuntime.runMain)
