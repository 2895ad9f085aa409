/**
 * `escape IMAGE MAP`: what is read of an image after its scope has closed. Prints a line for each: its name, and the tag of the
 * failure or "read".
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import * as Ktstr from "../../../src/Ktstr.ts"

const [image, name] = process.argv.slice(2)
const open = Effect.gen(function*() {
  const snapshot = yield* Ktstr.openImage(image)
  const [map] = yield* snapshot.maps.find(name)
  return { snapshot, map, entries: snapshot.maps.entries(map), reader: yield* snapshot.maps.reader(map) }
})
const { entries, map, reader, snapshot } = await Effect.runPromise(
  open.pipe(Effect.scoped, Effect.provide(NativeKoffi.layer))
)
const address = snapshot.kernel.symbol("linux_banner")
if (address === undefined) throw new Error("no linux_banner")

const uses: Readonly<Record<string, Effect.Effect<unknown, { readonly _tag: string }>>> = {
  "a stream that was made before": Stream.runDrain(entries),
  "a new stream": Stream.runDrain(Stream.suspend(() => snapshot.maps.entries(map))),
  "the kernel": snapshot.kernel.read(address, 8),
  "the list": snapshot.maps.find(name)
}
for (const [use, work] of Object.entries(uses)) {
  const failure = await Effect.runPromise(
    Effect.match(work, { onFailure: ({ _tag }) => _tag, onSuccess: () => "read" })
  )
  process.stdout.write(`${use}: ${failure}\n`)
}
const walk = reader.walk?.()
process.stdout.write(`a walk: ${walk?.next() === true ? "read" : walk?.problems.reason?.kind}\n`)
