/**
 * A web server for the running host's BPF maps (as root): `/` lists them, `/NAME` streams a map's entries as NDJSON.
 *
 *     live-map-http [PORT]
 */
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { LiveHost, openLive } from "ktstr/live"
import * as Native from "ktstr/native"
import { createServer } from "node:http"

/** Any JSON as keys and values; Schemas of your own give rows of their types. */
const Any = { key: Schema.Unknown, value: Schema.Unknown }

// Each request has a scope, which its response holds open until it is sent: descriptors are closed then.
const router = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/",
    Effect.gen(function*() {
      const { maps } = yield* openLive()
      const { items } = yield* maps.list
      return yield* HttpServerResponse.json(items.map(({ id, name, type }) => ({ id, name, type })))
    })
  ),
  HttpRouter.get(
    "/:name",
    Effect.gen(function*() {
      const { name = "" } = yield* HttpRouter.params
      const { maps } = yield* openLive({ keep: (map) => map.name === name })
      const lines = Stream.fromIterable(yield* maps.find(name)).pipe(
        Stream.flatMap((map) => maps.entriesAs(map, Any)),
        Stream.map((entry) => `${JSON.stringify(entry)}\n`)
      )
      return HttpServerResponse.stream(Stream.encodeText(lines), { contentType: "application/x-ndjson" })
    })
  ),
  HttpRouter.catchTag("MapNotFound", ({ message }) => HttpServerResponse.text(message, { status: 404 }))
)

router.pipe(
  HttpServer.serve(),
  HttpServer.withLogAddress,
  Layer.provide([LiveHost.layer, NodeHttpServer.layer(createServer, { port: Number(process.argv[2] ?? 8080) })]),
  Layer.provide([Native.layer, NodeContext.layer]),
  Layer.launch,
  NodeRuntime.runMain
)
