import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { BpfCalls } from "../../../src/bpf/live/calls/BpfCalls.ts"
import { openLive } from "../../../src/bpf/live/OpenLive.ts"
import { MapType } from "../../../src/bpf/MapType.ts"
import { Kind } from "../../../src/btf/BtfType.ts"
import { Native } from "../../../src/core/Native.ts"
import { BlobWriter } from "../../btf/BlobWriter.ts"
import { comparable } from "../../guest/entries.ts"
import { HostLive, idOf, loadBtf, makeMap, put, refused, u32 } from "./support.ts"

describe.skipIf(refused !== undefined)("a value of which the kernel keeps parts", () => {
  it.scopedLive("says what bpf(2) does not show, which is no zero", () =>
    Effect.gen(function*() {
      const writer = new BlobWriter()
      const word = writer.int("unsigned int", 4, { signed: false })
      const long = writer.int("unsigned long", 8, { signed: false })
      const timer = writer.struct("bpf_timer", 16, [
        { name: "first", type: long, bits: 0 },
        { name: "second", type: long, bits: 64 }
      ])
      const task = writer.struct("task_struct", 4, [{ name: "pid", type: word, bits: 0 }])
      const kept = writer.ref(Kind.PTR, writer.ref(Kind.TYPE_TAG, task, "kptr"))
      const value = writer.struct("value", 32, [
        { name: "number", type: word, bits: 0 },
        { name: "timer", type: timer, bits: 64 },
        { name: "task", type: kept, bits: 192 }
      ])
      const fd = yield* loadBtf(writer.bytes())
      const types = { fd, key: word, value }
      const map = yield* makeMap({ type: MapType.ARRAY, name: "kept", valueSize: 32, types })
      const calls = new BpfCalls(yield* Native)
      put(calls, map, u32(0), u32(77, 1, 2, 3, 4, 5, 6, 7))
      const live = yield* openLive()
      const [info] = yield* live.maps.find(String(idOf(calls, map)))
      const unseen = { $unsupported: "bpf(2) does not show it" }
      assert.deepStrictEqual(
        Array.from(yield* Stream.runCollect(live.maps.entries(info)), (entry) => comparable(entry)),
        [{
          keyHex: "00000000",
          // what was put there was not taken, and is not given
          valuesHex: [`4d000000${"01000000"}${"00".repeat(24)}`],
          plain: { key: 0, value: { number: 77, timer: unseen, task: unseen } }
        }]
      )
    }).pipe(Effect.provide(HostLive)))
})
