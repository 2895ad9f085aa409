import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServer from "@effect/platform/HttpServer"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import { assert, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { readdirSync, readlinkSync } from "node:fs"
import { openLive } from "../../src/bpf/live/OpenLive.ts"
import { Native } from "../../src/core/Native.ts"
import { LiveHost } from "../../src/host/LiveHost.ts"
import { HostLive, makeMap, refused } from "../bpf/live/support.ts"

/** Of this process the descriptors that are maps. */
const openMaps = () =>
  readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes("bpf-map")
    } catch {
      return false // that of the listing itself
    }
  }).length

/** Entries of a map of this host as lines of JSON; the map is open as long as the response streams. */
const entries = (name: string) =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const { maps } = yield* openLive({ keep: (map) => map.name === name })
    const [map] = yield* maps.find(name)
    return maps.entriesAs(map, { key: Schema.Int, value: Schema.String })
  })).pipe(Stream.map((row) => new TextEncoder().encode(`${JSON.stringify(row)}\n`)))

const router = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/maps/:name",
    Effect.gen(function*() {
      const { name } = yield* HttpRouter.schemaPathParams(Schema.Struct({ name: Schema.String }))
      const context = yield* Effect.context<Native | LiveHost>()
      yield* Effect.scoped(
        Effect.flatMap(openLive({ keep: (map) => map.name === name }), ({ maps }) => maps.find(name))
      )
      return HttpServerResponse.stream(Stream.provideContext(entries(name), context))
    })
  ),
  HttpRouter.catchTag("MapNotFound", ({ message }) => HttpServerResponse.text(message, { status: 404 }))
)

describe.skipIf(refused !== undefined)("maps of this host over HTTP", () => {
  it.scopedLive("stream, are not kept open by a client that goes away, and are missed with 404", () =>
    Effect.gen(function*() {
      yield* makeMap({ type: 2, name: "served", valueSize: 8, maxEntries: 50_000 })
      yield* HttpServer.serveEffect(router)
      const before = openMaps()
      const get = (path: string) => HttpClient.get(path)
      const lines = yield* HttpClient.get("/maps/served").pipe(
        Effect.flatMap(({ stream }) => Stream.runCollect(Stream.splitLines(Stream.decodeText(stream)))),
        Effect.map(Chunk.toReadonlyArray)
      )
      assert.strictEqual(lines.length, 50_000)
      assert.deepStrictEqual(JSON.parse(lines[49_999]), { key: 49_999, value: "0000000000000000" })
      const first = yield* get("/maps/served").pipe(
        Effect.flatMap(({ stream }) => Stream.runHead(stream)),
        Effect.scoped
      )
      assert.strictEqual(first._tag, "Some")
      // the server hears of the client's end at its own time
      yield* Effect.repeat(Effect.sync(openMaps), {
        until: (count) => count === before,
        schedule: Schedule.spaced("10 millis")
      })
      const missed = yield* get("/maps/nonesuch")
      assert.strictEqual(missed.status, 404)
      assert.match(yield* missed.text, /^no map nonesuch: `keep` excludes all \d+ maps$/)
    }).pipe(Effect.provide(Layer.merge(NodeHttpServer.layerTest, HostLive))))
})
