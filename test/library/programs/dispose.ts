/**
 * `dispose IMAGE MAP`: an HTTP server that is no Effect program reads an image by a ManagedRuntime, and disposes of that
 * while a response streams. Prints what became of the response.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { once } from "node:events"
import { createServer, get, type IncomingMessage } from "node:http"
import type { AddressInfo } from "node:net"
import { toJson } from "../../../src/btf/render/RenderedValue.ts"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import * as Ktstr from "../../../src/Ktstr.ts"

const [image, name] = process.argv.slice(2)
const runtime = ManagedRuntime.make(Layer.provide(Ktstr.layerImage(image), NativeKoffi.layer))
/** Lines without end, so that only disposal ends them. */
const lines = Stream.unwrap(Effect.gen(function*() {
  const maps = yield* Ktstr.MapAccessor
  const [map] = yield* maps.find(name)
  return Stream.repeat(maps.entries(map), Schedule.forever)
})).pipe(Stream.map(({ key }) => `${JSON.stringify(toJson(key))}\n`))

const context = await runtime.runtime()
const server = createServer(async (_, response) => {
  try {
    for await (const line of Stream.toAsyncIterableRuntime(lines, context)) {
      if (!response.write(line)) await once(response, "drain")
    }
    response.end()
  } catch (error) {
    process.stdout.write(`the stream failed: ${String(error).split("\n")[0]}\n`)
    response.destroy()
  }
}).listen(0, "127.0.0.1")
await once(server, "listening")
const { port } = server.address() as AddressInfo
const [response] = await once(get({ host: "127.0.0.1", port }), "response") as [IncomingMessage]
await once(response, "data")
process.stdout.write("the response streams\n")
await runtime.dispose()
process.stdout.write("disposed\n")
// `once` of node:events would throw the error of a response that was cut off
const closed = new Promise((resolve) => response.on("error", () => {}).on("close", resolve))
response.resume()
await closed
server.close()
