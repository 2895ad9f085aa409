import { assert, describe, it, layer } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { entryCount, MapAccessor, MapNotFound } from "../../src/bpf/MapAccessor.ts"
import { MapInfo } from "../../src/bpf/MapInfo.ts"
import { DUMP_VERSION, type Header } from "../../src/bpf/Report.ts"
import { dump, ndjson } from "../../src/bpf/report/DumpSnapshot.ts"
import { diffSnapshots, sideOfDocument } from "../../src/bpf/report/SnapshotDiff.ts"
import { toJson } from "../../src/btf/render/RenderedValue.ts"

const map = (id: number, name: string, type = "hash") =>
  new MapInfo({
    id,
    name,
    type,
    flags: 0,
    keySize: 4,
    valueSize: 8,
    maxEntries: 16,
    keyTypeId: 0,
    valueTypeId: 0,
    btfId: null
  })
const tasks = map(1, "tasks")
const hits = map(2, "hits", "percpu_array")
const empty = map(3, "empty")
const rows = [
  { key: 1, value: { comm: "init", runtime: "18446744073709551615" } },
  { key: 7, value: { comm: "a\u0001b", runtime: 5 } }
]
const made = { maps: [tasks, hits, empty], entries: { tasks: rows, hits: [{ key: 0, cpus: [3, null, 4] }] } }
const header: Header = {
  schema: "single",
  version: DUMP_VERSION,
  source: { kind: "image", path: "none" },
  kernel: { release: "6.12", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 3 },
  freeze: null
}

const Task = Schema.Struct({ comm: Schema.String, runtime: Schema.Union(Schema.Number, Schema.NumberFromString) })
const all = <A, E, R>(stream: Stream.Stream<A, E, R>) => Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

layer(MapAccessor.layerTest(made))("MapAccessor.layerTest", (it) => {
  it.effect("gives entries of JSON, tagged by whether they have a value or one for each CPU", () =>
    Effect.gen(function*() {
      const maps = yield* MapAccessor
      const [single] = yield* all(maps.entries(tasks))
      assert.deepStrictEqual([single._tag, single._tag === "single" && toJson(single.value)], ["single", rows[0].value])
      const [perCpu] = yield* all(maps.entries(hits))
      assert.deepStrictEqual(
        [perCpu._tag, perCpu._tag === "perCpu" && perCpu.cpus.map((one) => one && toJson(one))],
        ["perCpu", [3, undefined, 4]]
      )
      assert.deepStrictEqual(yield* all(maps.entries(empty)), [])
      assert.strictEqual((yield* maps.find("tasks"))[0], tasks)
      assert.strictEqual(
        (yield* Effect.flip(maps.find("nope"))).message,
        "no map nope: there are tasks, hits, empty"
      )
    }))

  it.effect("dumps as a document that has them, and that differs from another in what is another", () =>
    Effect.gen(function*() {
      const first = yield* dump({ header, maps: yield* MapAccessor })
      assert.deepStrictEqual(first.maps.map(({ entries }) => entries), [rows, [{ key: 0, cpus: [3, null, 4] }], []])
      const other = yield* Effect.provide(
        Effect.flatMap(MapAccessor, (maps) => dump({ header, maps })),
        MapAccessor.layerTest({ ...made, entries: { ...made.entries, tasks: rows.slice(1) } })
      )
      const changes = yield* all(diffSnapshots(sideOfDocument(first), sideOfDocument(other)))
      assert.deepStrictEqual(changes.map((change) => change.change), ["entryRemoved"])
    }))
})

describe("entriesAs", () => {
  const test = MapAccessor.layerTest(made)

  it.effect("gives rows of the Schemas' types; of a per-CPU map the CPUs' values", () =>
    Effect.gen(function*() {
      const maps = yield* MapAccessor
      const typed = yield* all(maps.entriesAs(tasks, { key: Schema.Int, value: Task }))
      const runtimes: ReadonlyArray<number> = typed.map(({ value }) => value.runtime)
      assert.deepStrictEqual(runtimes, [2 ** 64, 5])
      const cpus = yield* all(maps.entriesAs(hits, { key: Schema.Int, value: Schema.Array(Schema.NullOr(Schema.Int)) }))
      assert.deepStrictEqual(cpus, [{ key: 0, value: [3, null, 4] }])
    }).pipe(Effect.provide(test)))

  it.effect("names the entry, the member and what it is, behind the rows before it", () =>
    Effect.gen(function*() {
      const maps = yield* MapAccessor
      const seen: Array<number> = []
      const strict = Schema.Struct({ comm: Schema.String.pipe(Schema.pattern(/^[a-z]*$/)) })
      const error = yield* maps.entriesAs(tasks, { key: Schema.Int, value: strict }).pipe(
        Stream.runForEach(({ key }) => Effect.sync(() => void seen.push(key))),
        Effect.flip
      )
      assert.deepStrictEqual(seen, [1])
      assert.strictEqual(
        error.message,
        "map 1 (tasks), entry 1: its value does not fit the Schema: comm: Expected a string matching the pattern " +
          "^[a-z]*$, actual \"a\\u0001b\"; it is {\"comm\":\"a\\u0001b\",\"runtime\":5}; change the Schema"
      )
      const key = yield* Effect.flip(Stream.runDrain(maps.entriesAs(tasks, { key: Schema.String, value: Task })))
      assert.include(key.message, "entry 0: its key does not fit the Schema: Expected string, actual 1")
    }).pipe(Effect.provide(test)))
})

describe("reading maps", () => {
  it.effect("counts entries, of streams and of dumps", () =>
    Effect.gen(function*() {
      const maps = yield* MapAccessor
      const counter = Metric.tagged(entryCount, "consistency", "frozen")
      const before = (yield* Metric.value(counter)).count
      yield* Stream.runDrain(maps.entries(tasks))
      yield* Stream.runDrain(ndjson({ header, maps }))
      yield* dump({ header, maps })
      assert.strictEqual((yield* Metric.value(counter)).count - before, 2 + 3 + 3)
    }).pipe(Effect.provide(MapAccessor.layerTest(made))))

  it.effect("is a span of a fixed name, with the map as attributes", () =>
    Effect.gen(function*() {
      const spans: Array<Tracer.Span> = []
      const { context, span } = yield* Effect.tracer
      const tracer = Tracer.make({
        span: (...given) => {
          const made = span(...given)
          spans.push(made)
          return made
        },
        context
      })
      const maps = yield* MapAccessor
      yield* Effect.withTracer(Stream.runDrain(maps.entries(hits)), tracer)
      assert.deepStrictEqual(
        spans.map(({ attributes, name }) => [name, Object.fromEntries(attributes)]),
        [["MapAccessor.entries", { id: 2, name: "hits", type: "percpu_array" }]]
      )
    }).pipe(Effect.provide(MapAccessor.layerTest(made))))
})

describe("MapNotFound", () => {
  it("says when maps were left out, and does not call the kernel empty then", () => {
    const said = (names: ReadonlyArray<string>, omitted: number) =>
      new MapNotFound({ wanted: "x", names, omitted }).message
    assert.deepStrictEqual([said([], 0), said([], 3), said(["a"], 3), said(["a"], 0)], [
      "no map x: this kernel has no BPF maps",
      "no map x: `keep` excludes all 3 maps",
      "no map x: there are a; `keep` excludes 3 more",
      "no map x: there are a"
    ])
  })
})
