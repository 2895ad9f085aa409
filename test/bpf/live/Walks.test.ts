import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { BpfCalls } from "../../../src/bpf/live/calls/BpfCalls.ts"
import { LiveMaps } from "../../../src/bpf/live/LiveMaps.ts"
import { liveTable } from "../../../src/bpf/live/LiveOpeners.ts"
import { BatchWalk } from "../../../src/bpf/live/walks/BatchWalk.ts"
import { KeyWalk } from "../../../src/bpf/live/walks/KeyWalk.ts"
import { problemOf } from "../../../src/bpf/MapReader.ts"
import { isPerCpu, MapType } from "../../../src/bpf/MapType.ts"
import { Native } from "../../../src/core/Native.ts"
import { LiveHost } from "../../../src/host/LiveHost.ts"
import { comparable } from "../../guest/entries.ts"
import { parseEntries, parseMaps } from "../../support/bpftool.ts"
import { bpftool, HostLive, idOf, makeMap, openDescriptors, put, refused, u32, u64 } from "./support.ts"

const HASH = { type: MapType.HASH, keySize: 4, valueSize: 8, maxEntries: 20_000 }

/** The map, opened by its id as others' maps are. */
const opened = (id: number) =>
  Effect.gen(function*() {
    const { btf } = yield* LiveHost
    const live = yield* LiveMaps.make(btf, { keep: (map) => map.id === id })
    const { items: [info] } = yield* live.accessor.list
    return { info, reader: yield* live.accessor.reader(info), entries: live.accessor.entries(info) }
  })

describe.skipIf(refused !== undefined)("walks", () => {
  it.scopedLive("values of 1 to 9 bytes, and of CPUs, have the bytes that bpftool prints", () =>
    Effect.gen(function*() {
      const calls = new BpfCalls(yield* Native)
      const { possibleCpus } = yield* LiveHost
      const types = [MapType.HASH, MapType.ARRAY, MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH]
      for (const type of types) {
        for (let valueSize = 1; valueSize <= 9; valueSize++) {
          yield* Effect.scoped(Effect.gen(function*() {
            const map = yield* makeMap({ type, name: "sized", keySize: 4, valueSize, maxEntries: 5 })
            const perCpu = isPerCpu(type)
            const slot = perCpu ? Math.ceil(valueSize / 8) * 8 : valueSize
            for (let key = 0; key < 5; key++) {
              const value = new Uint8Array(perCpu ? slot * possibleCpus.length : slot)
              put(calls, map, u32(key), value.map((_, at) => (key * 40 + at * 3 + 1) & 255))
            }
            const id = idOf(calls, map)
            const { entries } = yield* opened(id)
            const ours = Array.from(yield* Stream.runCollect(entries), comparable)
            const [listed] = parseMaps(`[${yield* Effect.promise(() => bpftool("map", "list", "id", String(id)))}]`)
            const theirs = parseEntries(yield* Effect.promise(() => bpftool("map", "dump", "id", String(id))), listed)
            assert.strictEqual(ours.length, 5)
            const bytes = ({ keyHex, valuesHex }: { keyHex: string; valuesHex: ReadonlyArray<string> }) =>
              `${keyHex}: ${valuesHex.join(" ")}`
            assert.sameMembers(ours.map(bytes), theirs.map(bytes), `type ${type}, ${valueSize} bytes`)
          }))
        }
      }
    }).pipe(Effect.provide(HostLive)))

  it.scopedLive("a bucket with more entries than a batch has room for is read whole", () =>
    Effect.gen(function*() {
      const calls = new BpfCalls(yield* Native)
      const shape = { ...HASH, valueSize: 600_000, maxEntries: 8 }
      const map = yield* makeMap({ ...shape, name: "large", flags: 1 })
      const value = new Uint8Array(shape.valueSize)
      for (let key = 0; key < 8; key++) put(calls, map, u32(key), value.fill(key + 1))
      const walk = new BatchWalk(calls, liveTable(map, shape, null))
      assert.isTrue(walk.begin())
      const keys: Array<number> = []
      while (walk.next()) {
        keys.push(walk.keyView.getUint32(walk.keyAt, true))
        assert.isTrue(walk.value(0))
        assert.strictEqual(walk.valueView.getUint8(walk.valueAt + shape.valueSize - 1), keys.at(-1)! + 1)
      }
      assert.isNull(walk.problems.reason)
      assert.sameMembers(keys, [0, 1, 2, 3, 4, 5, 6, 7])
    }).pipe(Effect.provide(HostLive)))

  for (const by of ["batches", "keys"] as const) {
    it.scopedLive(`no key comes twice by ${by} and none that stays is lost while others come and go`, () =>
      Effect.gen(function*() {
        const calls = new BpfCalls(yield* Native)
        const map = yield* makeMap({ ...HASH, name: "busy", flags: 1 })
        const stays = (key: number): boolean => key % 3 === 0
        const key = calls.buffer(4)
        const remove = (number: number): void => {
          key.view.setUint32(0, number, true)
          calls.delete(map, key)
        }
        for (let number = 0; number < 9000; number++) put(calls, map, u32(number), u64(BigInt(number)))
        // Batches that are smaller than the map, so that it changes between them.
        const small = { ...liveTable(map, HASH, null), maxEntries: 500 }
        const walk = by === "batches" ? new BatchWalk(calls, small) : new KeyWalk(calls, small, false)
        if (walk instanceof BatchWalk) assert.isTrue(walk.begin())
        const seen: Array<number> = []
        let fresh = 9000
        while (walk.next()) {
          const number = walk.keyView.getUint32(walk.keyAt, true)
          walk.value(0)
          assert.strictEqual(walk.valueView.getBigUint64(walk.valueAt, true), BigInt(number))
          seen.push(number)
          // The key that the walk stands at, one before, one behind; and new ones.
          if (seen.length % 50 === 0) {
            for (const gone of [number, number - 1, number + 1]) if (!stays(gone)) remove(gone)
            if (fresh < 12_000) put(calls, map, u32(fresh), u64(BigInt(fresh++)))
          }
        }
        assert.isNull(walk.problems.reason)
        const came = new Set(seen)
        assert.strictEqual(came.size, seen.length, "a key came twice")
        const lost = Array.from({ length: 3000 }, (_, index) => index * 3).filter((number) => !came.has(number))
        assert.deepStrictEqual(lost, [])
      }).pipe(Effect.provide(HostLive)))
  }

  it.scopedLive("entries that can no longer be read are said to be missing", () =>
    Effect.gen(function*() {
      const native = yield* Native
      const calls = new BpfCalls(native)
      const broken = liveTable(-1, HASH, null)
      for (const walk of [new KeyWalk(calls, broken, false), new BatchWalk(calls, broken)]) {
        assert.isFalse(walk.next())
        assert.match(walk.problems.reason?.text ?? "", /^BPF_MAP_\w+: EBADF; entries are missing$/)
      }
    }).pipe(Effect.provide(HostLive)))

  it.scopedLive("a map that user space may only write says so", () =>
    Effect.gen(function*() {
      const calls = new BpfCalls(yield* Native)
      const map = yield* makeMap({ ...HASH, name: "deaf", flags: 1 | 1 << 4 })
      const walk = new BatchWalk(calls, liveTable(map, HASH, null))
      walk.begin()
      assert.isFalse(walk.next())
      assert.match(walk.problems.reason?.text ?? "", /EPERM/)
    }).pipe(Effect.provide(HostLive)))

  it.effect("the copies of a value lie in the order of possible CPUs, whose numbers may have gaps", () =>
    Effect.sync(() => {
      const { copies, stride } = liveTable(3, { keySize: 4, valueSize: 9, maxEntries: 1 }, [0, 1, 4])
      assert.deepStrictEqual([...copies ?? []], [0, 16, -1, -1, 32])
      assert.strictEqual(stride, 48)
    }))

  it.scopedLive("10,000 rounds of opening and reading leave no descriptor open", () =>
    Effect.gen(function*() {
      const calls = new BpfCalls(yield* Native)
      const { btf } = yield* LiveHost
      const maps = yield* Effect.forEach(
        [HASH, { ...HASH, type: MapType.RINGBUF, keySize: 0, valueSize: 0, maxEntries: 4096 }],
        (shape, index) => makeMap({ ...shape, name: `round${index}`, flags: index === 0 ? 1 : 0 })
      )
      put(calls, maps[0], u32(7), u64(7n))
      const ids = new Set(maps.map((map) => idOf(calls, map)))
      const before = openDescriptors()
      for (let round = 0; round < 10_000; round++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const { accessor } = yield* LiveMaps.make(btf, { keep: ({ id }) => ids.has(id) })
          const { items } = yield* accessor.list
          assert.strictEqual(items.length, 2)
          for (const info of items) {
            const reader = yield* accessor.reader(info)
            const walk = reader.walk!()
            while (walk.next());
            assert.isNull(problemOf(reader, walk))
          }
        }))
      }
      assert.strictEqual(openDescriptors(), before)
    }).pipe(Effect.provide(HostLive)), 120_000)
})
