import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { BpfCalls } from "../../../src/bpf/live/calls/BpfCalls.ts"
import { LiveMaps } from "../../../src/bpf/live/LiveMaps.ts"
import { MapType } from "../../../src/bpf/MapType.ts"
import { Kind } from "../../../src/btf/BtfType.ts"
import { toJson } from "../../../src/btf/render/RenderedValue.ts"
import { Native } from "../../../src/core/Native.ts"
import { LiveHost } from "../../../src/host/LiveHost.ts"
import { BlobWriter } from "../../btf/BlobWriter.ts"
import { bpftool, freeze, HostLive, idOf, loadBtf, makeMap, type MapSpec, put, refused, u32 } from "./support.ts"

/** `struct point { int x; unsigned char tag[4]; enum color color; }`, and a 32-bit key. */
const typed = Effect.gen(function*() {
  const blob = new BlobWriter()
  const int = blob.int("int", 4, { signed: true })
  const key = blob.int("unsigned int", 4)
  const char = blob.int("char", 1)
  const tag = blob.type(Kind.ARRAY, { body: [char, key, 4] })
  const color = blob.enum32("color", [["RED", 1], ["GREEN", 2]])
  const value = blob.struct("point", 12, [
    { name: "x", type: int, bits: 0 },
    { name: "tag", type: tag, bits: 32 },
    { name: "color", type: color, bits: 64 }
  ])
  return { fd: yield* loadBtf(blob.bytes()), key, value }
})

const live = (spec: MapSpec) =>
  Effect.gen(function*() {
    const calls = new BpfCalls(yield* Native)
    const map = yield* makeMap(spec)
    const { btf } = yield* LiveHost
    const maps = yield* LiveMaps.make(btf, { keep: ({ id }) => id === idOf(calls, map) })
    const { items: [info] } = yield* maps.accessor.list
    const entries = Effect.map(
      Stream.runCollect(maps.accessor.entries(info)),
      (found) =>
        Array.from(found, (entry) =>
          "cpus" in entry
            ? [toJson(entry.key), entry.cpus.map((value) => value === undefined ? null : toJson(value))]
            : [toJson(entry.key), toJson(entry.value)])
    )
    const write = (change: Parameters<typeof maps.write>[1]) => maps.write(info, change)
    const says = (change: Parameters<typeof maps.write>[1]) =>
      Effect.map(Effect.flip(write(change)), ({ message }) => message.replace(/^map \d+ /, "map "))
    return { calls, map, info, entries, write, says }
  })

const HASH = { type: MapType.HASH, name: "written", keySize: 4, valueSize: 12, maxEntries: 2 }

describe.skipIf(refused !== undefined)("LiveWrite", () => {
  it.scopedLive("what a dump prints can be written, as bpftool sees it, and what is left out stays", () =>
    Effect.gen(function*() {
      const types = yield* typed
      const { entries, info, says, write } = yield* live({ ...HASH, types })
      const value = { x: -7, tag: "ab", color: "GREEN" }
      yield* write({ kind: "update", key: 5, value, mode: "create" })
      assert.deepStrictEqual<unknown>(yield* entries, [[5, value]])
      const [printed] = JSON.parse(yield* Effect.promise(() => bpftool("map", "dump", "id", String(info.id))))
      assert.deepStrictEqual(printed.formatted, { key: 5, value })
      yield* write({ kind: "update", key: 5, value: { x: 8 }, mode: "existing" })
      assert.deepStrictEqual<unknown>(yield* entries, [[5, { ...value, x: 8 }]])

      assert.match(
        yield* says({ kind: "update", key: 5, value, mode: "create" }),
        /^map \(written\) was not written: it already has an entry 5 \(mode: create\)$/
      )
      assert.match(
        yield* says({ kind: "update", key: 6, value, mode: "existing" }),
        /it has no entry 6 \(mode: existing\)$/
      )
      yield* write({ kind: "update", key: 6, value, mode: "any" })
      assert.match(yield* says({ kind: "update", key: 7, value, mode: "any" }), /it is full, or has no such index$/)
      assert.match(
        yield* says({ kind: "update", key: 5, value: { color: "BLUE" }, mode: "any" }),
        /^color: expected a number, or one of RED, GREEN, not "BLUE"$/
      )
      yield* write({ kind: "delete", key: 6 })
      assert.match(yield* says({ kind: "delete", key: 6 }), /it has no entry 6$/)
      assert.deepStrictEqual<unknown>(yield* entries, [[5, { ...value, x: 8 }]])
    }).pipe(Effect.provide(HostLive)))

  it.scopedLive("maps without types are written by index and by hex digits", () =>
    Effect.gen(function*() {
      const { entries, says, write } = yield* live({
        type: MapType.ARRAY,
        name: "plain",
        keySize: 4,
        valueSize: 3,
        maxEntries: 2
      })
      yield* write({ kind: "update", key: 1, value: "0aff01", mode: "any" })
      assert.deepStrictEqual(yield* entries, [[0, "000000"], [1, "0aff01"]])
      assert.match(yield* says({ kind: "update", key: 2, value: "000000", mode: "any" }), /no such index/)
      assert.match(yield* says({ kind: "update", key: 1, value: "0aff", mode: "any" }), /expected 6 hex digits/)
      assert.match(yield* says({ kind: "update", key: -1, value: "000000", mode: "any" }), /expected an index, not -1/)
      assert.match(yield* says({ kind: "delete", key: 0 }), /EINVAL: entries of such maps cannot be deleted/)
    }).pipe(Effect.provide(HostLive)))

  it.scopedLive("of a per-CPU value the CPUs that are named change", () =>
    Effect.gen(function*() {
      const { possibleCpus } = yield* LiveHost
      const { entries, says, write } = yield* live({
        type: MapType.PERCPU_ARRAY,
        name: "each",
        keySize: 4,
        valueSize: 5,
        maxEntries: 1
      })
      const cpus = possibleCpus.map((cpu) => `0${cpu % 10}00000000`)
      yield* write({ kind: "update", key: 0, value: cpus, mode: "any" })
      yield* write({ kind: "update", key: 0, value: ["ff00000001", ...cpus.slice(1).map(() => null)], mode: "any" })
      assert.deepStrictEqual<unknown>(yield* entries, [[0, ["ff00000001", ...cpus.slice(1)]]])
      assert.match(
        yield* says({ kind: "update", key: 0, value: cpus[0], mode: "any" }),
        /must be an array of \d+, one element per CPU/
      )
    }).pipe(Effect.provide(HostLive)))

  it.scopedLive("keys and values without a type are hex, and what is not is refused by name, however long", () =>
    Effect.gen(function*() {
      const { entries, says, write } = yield* live({ ...HASH, valueSize: 2 })
      yield* write({ kind: "update", key: "0x01000000", value: "0x0aff", mode: "any" })
      yield* write({ kind: "update", key: "02000000", value: "0b00", mode: "any" })
      assert.sameDeepMembers(yield* entries, [["01000000", "0aff"], ["02000000", "0b00"]])
      const key = "[".repeat(100_000)
      assert.strictEqual(
        yield* says({ kind: "delete", key }),
        `map (written) was not written: its key: expected 8 hex digits, not "${key.slice(0, 56)}...`
      )
    }).pipe(Effect.provide(HostLive)))

  it.scopedLive("frozen maps, and maps of objects, are refused with the reason", () =>
    Effect.gen(function*() {
      const change = { kind: "update", key: 0, value: "00000000", mode: "any" } as const
      const frozen = yield* live({ type: MapType.ARRAY, name: "frozen" })
      put(frozen.calls, frozen.map, u32(0), u32(9))
      assert.strictEqual(yield* freeze(frozen.map), 0)
      assert.match(
        yield* frozen.says(change),
        /it is read-only: its creator froze it for good \(BPF_MAP_FREEZE\)$/
      )
      assert.deepStrictEqual(yield* frozen.entries, [[0, "09000000"]])
      const programs = yield* live({ type: MapType.PROG_ARRAY, name: "programs" })
      assert.match(yield* programs.says(change), /the values of prog_array maps are not plain bytes/)
    }).pipe(Effect.provide(HostLive)))
})
