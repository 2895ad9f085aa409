import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import { BpfCalls } from "../../../src/bpf/live/calls/BpfCalls.ts"
import { LiveMaps } from "../../../src/bpf/live/LiveMaps.ts"
import { MapType } from "../../../src/bpf/MapType.ts"
import { watchMaps, type WatchTick } from "../../../src/bpf/report/MapWatch.ts"
import { Native } from "../../../src/core/Native.ts"
import { LiveHost } from "../../../src/host/LiveHost.ts"
import { BlobWriter } from "../../btf/BlobWriter.ts"
import { HostLive, idOf, loadBtf, makeMap, put, refused, u32, u64 } from "../live/support.ts"

describe.skipIf(refused !== undefined)("watchMaps", () => {
  it.scoped("says what came, went and changed between two readings, with rates", () =>
    Effect.gen(function*() {
      const calls = new BpfCalls(yield* Native)
      const blob = new BlobWriter()
      const types = { key: blob.int("unsigned int", 4), value: blob.int("unsigned long", 8) }
      const fd = yield* loadBtf(blob.bytes())
      const spec = { type: MapType.HASH, name: "watched", keySize: 4, valueSize: 8, maxEntries: 8 }
      const map = yield* makeMap({ ...spec, types: { fd, ...types } })
      const id = idOf(calls, map)
      const { btf } = yield* LiveHost
      const { accessor } = yield* LiveMaps.make(btf, { keep: (info) => info.id === id })
      const readers = yield* Effect.forEach((yield* accessor.list).items, accessor.reader)
      const ticks = yield* Queue.unbounded<WatchTick>()
      const watching = yield* Effect.fork(
        Stream.runForEach(watchMaps(Effect.succeed(readers), "2 seconds"), (tick) => Queue.offer(ticks, tick))
      )
      put(calls, map, u32(1), u64(2n ** 63n))
      put(calls, map, u32(2), u64(7n))
      const first = yield* Queue.take(ticks)
      assert.deepStrictEqual([first.seconds, first.changes], [null, []])
      assert.deepStrictEqual(first.maps, [{ id, name: "watched", entries: 2, problem: null }])

      put(calls, map, u32(1), u64(2n ** 63n + 5n))
      put(calls, map, u32(3), u64(1n))
      const gone = calls.buffer(4)
      gone.view.setUint32(0, 2, true)
      calls.delete(map, gone)
      yield* TestClock.adjust("2 seconds")
      const { changes, seconds } = yield* Queue.take(ticks)
      assert.strictEqual(seconds, 2)
      const of = { id, name: "watched", type: "hash" }
      assert.sameDeepMembers<unknown>([...changes], [
        {
          change: "entryChanged",
          ...of,
          key: 1,
          fields: [{
            path: "",
            cpu: null,
            before: "9223372036854775808",
            after: "9223372036854775813",
            delta: 5,
            rate: 2.5
          }]
        },
        { change: "entryAdded", ...of, key: 3, value: 1 },
        { change: "entryRemoved", ...of, key: 2, value: 7 }
      ])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual((yield* Queue.take(ticks)).changes, [])
      yield* Fiber.interrupt(watching)
    }).pipe(Effect.provide(HostLive)))
})
