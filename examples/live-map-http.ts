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
import * as Stream from "effect/Stream"
import type { MapAccessor, MapInfo } from "ktstr/bpf"
import { toJson } from "ktstr/btf"
import { LiveHost, openLive } from "ktstr/live"
import * as Native from "ktstr/native"
import { createServer } from "node:http"

const entries = (maps: typeof MapAccessor.Service, map: MapInfo) =>
  maps.entries(map).pipe(
    Stream.map((entry) => ({
      key: toJson(entry.key),
      ...("value" in entry
        ? { value: toJson(entry.value) }
        : { cpus: entry.cpus.map((value) => value === undefined ? null : toJson(value)) })
    })),
    Stream.map((entry) => `${JSON.stringify(entry)}\n`),
    Stream.encodeText
  )

// Each request has a scope, which its response holds open until it is sent: descriptors are closed then.
const router = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/",
    Effect.gen(function*() {
      const { maps } = yield* openLive()
      const { items } = yield* maps.maps
      return yield* HttpServerResponse.json(items.map(({ id, name, type }) => ({ id, name, type })))
    })
  ),
  HttpRouter.get(
    "/:name",
    Effect.gen(function*() {
      const { name = "" } = yield* HttpRouter.params
      const { maps } = yield* openLive({ keep: (map) => map.name === name })
      const found = Stream.fromIterable(yield* maps.find(name))
      return HttpServerResponse.stream(Stream.flatMap(found, (map) => entries(maps, map)), {
        contentType: "application/x-ndjson"
      })
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
