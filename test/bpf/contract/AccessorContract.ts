import { assert, layer } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { openInnerMaps } from "../../../src/bpf/InnerMaps.ts"
import { MapInfo } from "../../../src/bpf/MapInfo.ts"
import { type MapEntry, type MapReader, problemOf } from "../../../src/bpf/MapReader.ts"
import { DumpRecord } from "../../../src/bpf/Report.ts"
import { ndjsonRecords } from "../../../src/bpf/report/DumpWriter.ts"
import { type Json, toJson } from "../../../src/btf/render/RenderedValue.ts"
import { contractMaps, OTHER_MAPS } from "./ContractMaps.ts"
import { Subject } from "./Subject.ts"

const all = <A, E, R>(stream: Stream.Stream<A, E, R>) => Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const isOurs = ({ name }: MapInfo): boolean => name.startsWith("ct_")

/** An entry in the form of `ContractEntry`, without the bytes that are there for what JSON hides. */
const plain = (entry: MapEntry) =>
  entry._tag === "perCpu"
    ? {
      json: { key: toJson(entry.key), cpus: entry.cpus.map((value) => value === undefined ? null : toJson(value)) },
      keyHex: hex(entry.keyBytes),
      valuesHex: entry.cpuBytes.map((bytes) => bytes === undefined ? "" : hex(bytes))
    }
    : {
      json: { key: toJson(entry.key), value: toJson(entry.value) },
      keyHex: hex(entry.keyBytes),
      valuesHex: [hex(entry.valueBytes)]
    }

/** In the order of the keys' bytes: that of a hash table differs with its seed. */
const byKey = <A extends { readonly keyHex: string }>(entries: ReadonlyArray<A>): ReadonlyArray<A> =>
  [...entries].sort((a, b) => a.keyHex < b.keyHex ? -1 : 1)

/** The only map of that name. */
const named = (name: string) =>
  Effect.gen(function*() {
    const { maps } = yield* Subject
    const found = yield* maps.find(name)
    assert.lengthOf(found, 1, name)
    return found[0]
  })

/** The maps of the contract as a source lists them, in the order of the table; those of one name in the order of ids. */
const ours = Effect.gen(function*() {
  const { maps, possibleCpus } = yield* Subject
  const { items } = yield* maps.list
  const left = [...items]
  return contractMaps(possibleCpus).map((expected) => {
    const at = left.findIndex(({ name }) => name === expected.name)
    assert.isAtLeast(at, 0, `${expected.name} is listed`)
    const [info] = left.splice(at, 1)
    return { expected, info }
  })
})

/** The values of a map whose entries are all there, by key. */
const valuesOf = (name: string) =>
  Effect.gen(function*() {
    const { maps } = yield* Subject
    const entries = yield* all(maps.entries(yield* named(name)))
    return entries.map((entry) => ({ ...plain(entry).json, bytes: plain(entry).valuesHex[0] }))
  })

const recordsOf = (
  readers: ReadonlyArray<MapReader>,
  options: { readonly limit?: number; readonly held?: boolean } = {}
) =>
  Effect.gen(function*() {
    const { header, maps } = yield* Subject
    const inner = options.held === true ? yield* openInnerMaps(maps, readers) : undefined
    const pieces = ndjsonRecords({
      header,
      readers,
      programs: [],
      problems: [],
      limit: options.limit ?? Infinity,
      inner
    })
    return Buffer.concat(Array.from(pieces, (piece) => piece.slice())).toString().trimEnd().split("\n")
  })

const withoutIds = (line: string): string => line.replace(/"id":\d+/g, "\"id\":0")

/**
 * The behaviour that every source's `MapAccessor` has, as tests. The last one releases the source.
 * @param subject a source whose kernel holds the maps of test/bpf-src/contract-fill.sh
 */
export const accessorContract = (name: string, subject: Layer.Layer<Subject, unknown>): void =>
  layer(subject, { excludeTestServices: true, timeout: "5 minutes" })(`the accessor of ${name}`, (it) => {
    it.effect("lists maps in the order of ids, each with the kernel's facts", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const { items, problems } = yield* maps.list
        assert.deepStrictEqual(problems, [])
        const ids = items.map(({ id }) => id)
        assert.deepStrictEqual(ids, [...new Set(ids)].sort((a, b) => a - b))
        const listed = items.filter(isOurs)
        assert.deepStrictEqual(
          listed.map((info) => info.name).filter((name) => OTHER_MAPS.includes(name)).sort(),
          OTHER_MAPS
        )
        const known = yield* ours
        assert.lengthOf(listed, known.length + OTHER_MAPS.length)
        for (const { expected: { entries: _entries, hasTypes, ...facts }, info } of known) {
          assert.deepInclude({ ...info }, facts)
          assert.strictEqual(info.keyTypeId !== 0 && info.valueTypeId !== 0, hasTypes, info.name)
        }
        for (const info of listed) {
          assert.instanceOf(info, MapInfo)
          if (info.keyTypeId !== 0) assert.isAbove(info.btfId ?? 0, 0, info.name)
        }
      }))

    it.effect("lists programs in the order of ids", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const { items, problems } = yield* maps.programs
        assert.deepStrictEqual(problems, [])
        const ids = items.map(({ id }) => id)
        assert.deepStrictEqual(ids, [...new Set(ids)].sort((a, b) => a - b))
        assert.deepStrictEqual(
          items.flatMap(({ name, type }) => /^(ct_|fill_contract)/.test(name) ? [[name, type]] : []).sort(),
          [["ct_avoid", "struct_ops"], ["ct_ssthresh", "struct_ops"], ["ct_undo", "struct_ops"], [
            "fill_contract",
            "sched_cls"
          ]]
        )
      }))

    it.effect("finds a map by name and by id, and every map of a name", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const hash = yield* named("ct_hash")
        assert.deepStrictEqual(yield* maps.find(String(hash.id)), [hash])
        const twins = yield* maps.find("ct_twin")
        assert.deepStrictEqual(twins.map((info) => info.name), ["ct_twin", "ct_twin"])
        assert.isAbove(twins[1].id, twins[0].id)
      }))

    it.effect("an unknown name or id fails as MapNotFound, with the names that there are", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const names = (yield* maps.list).items.map((info) => info.name)
        for (const wanted of ["ct_nope", "ct_has", "2147483647", ""]) {
          const error = yield* Effect.flip(maps.find(wanted))
          assert.strictEqual(error._tag, "MapNotFound")
          if (error._tag !== "MapNotFound") continue
          assert.deepStrictEqual([error.wanted, error.names, error.omitted], [wanted, names, 0])
          assert.include(error.message, `no map ${wanted}: there are `)
        }
      }))

    it.effect("a map that is not in the list has a reader that says so, and entries that end with MapProblem", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const stranger = new MapInfo({ ...(yield* named("ct_hash")), id: 2147483647 })
        const reader = yield* maps.reader(stranger)
        const problem = { kind: "absent", text: "it is not in the list" }
        assert.deepStrictEqual(
          [reader.info, reader.consistency, reader.walk, { ...reader.problem }],
          [stranger, "unseen", null, problem]
        )
        const error = yield* Effect.flip(Stream.runDrain(maps.entries(stranger)))
        assert.strictEqual(error._tag, "MapProblem")
        assert.strictEqual(error.message, "map 2147483647 (ct_hash): absent: it is not in the list")
      }))

    it.effect("gives every entry, typed and as bytes", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        for (const { expected, info } of yield* ours) {
          const entries = yield* all(maps.entries(info))
          const theirs = expected.entries.map(({ json: { valueBytes: _bytes, ...json }, ...bytes }) => ({
            json,
            ...bytes
          }))
          assert.deepStrictEqual<unknown>(byKey(entries.map(plain)), byKey(theirs), expected.name)
        }
      }))

    it.effect("a reader knows its map, its consistency and the CPUs' copies, and has no problem", () =>
      Effect.gen(function*() {
        const { consistency, maps, possibleCpus } = yield* Subject
        for (const { expected, info } of yield* ours) {
          const reader = yield* maps.reader(info)
          const cpus = /percpu/.test(expected.type) ? possibleCpus : null
          assert.deepStrictEqual([reader.info, reader.consistency, reader.cpus], [info, consistency, cpus])
          for (const walk of [reader.walk!(), reader.walk!()]) { // each from the first entry
            let entries = 0
            while (walk.next()) entries++
            assert.strictEqual(entries, expected.entries.length, expected.name)
            assert.isFalse(walk.next(), "the end is the end")
            assert.isNull(problemOf(reader, walk), expected.name)
          }
        }
        const { details } = yield* maps.reader(yield* named("ct_ring"))
        assert.deepInclude(details ?? {}, { size: 4096, consumer: 0, producer: 48 })
      }))

    it.effect("streams of two maps do not disturb each other, and one may be left early", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const [first, second] = [yield* named("ct_array"), yield* named("ct_percpu")]
        const keys = yield* all(Stream.zipWith(
          maps.entries(first).pipe(Stream.rechunk(1)),
          maps.entries(second).pipe(Stream.rechunk(1)),
          (one, other) => [plain(one).json, plain(other).json.key]
        ))
        assert.deepStrictEqual<unknown>(keys, [[{ key: 0, value: 0 }, 0], [{ key: 1, value: 1 }, 1]])
        assert.lengthOf(yield* all(Stream.take(maps.entries(first), 1)), 1)
        assert.lengthOf(yield* all(maps.entries(first)), 3)
      }))

    it.effect("entriesAs gives rows of the Schemas' types, and EntryMismatch behind those that fit", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const array = yield* named("ct_array")
        const rows = yield* all(maps.entriesAs(array, { key: Schema.Int, value: Schema.Int }))
        assert.deepStrictEqual(rows, [{ key: 0, value: 0 }, { key: 1, value: 1 }, { key: 2, value: 4 }])
        const seen: Array<number> = []
        const error = yield* maps.entriesAs(array, { key: Schema.Int, value: Schema.Int.pipe(Schema.lessThan(4)) })
          .pipe(
            Stream.runForEach(({ key }) => Effect.sync(() => void seen.push(key))),
            Effect.flip
          )
        assert.deepStrictEqual(seen, [0, 1])
        assert.strictEqual(error._tag, "EntryMismatch")
        if (error._tag === "EntryMismatch") assert.deepStrictEqual([error.id, error.index, error.got], [array.id, 2, 4])
      }))

    it.effect("writes equal contents as equal NDJSON, but for ids and consistency", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        for (const { expected, info } of yield* ours) {
          const { entries, name } = expected
          const lines = yield* recordsOf([yield* maps.reader(info)])
          const records = yield* Effect.forEach(lines, (line) => Schema.decode(Schema.parseJson(DumpRecord))(line))
          assert.deepStrictEqual(records.map(({ record }) => record), [
            "dump",
            "map",
            ...entries.map(() => "entry"),
            "mapEnd",
            "end"
          ])
          const written = lines.filter((line) => line.startsWith("{\"record\":\"entry\"")).map(withoutIds)
          const texts = entries.map(({ json }) => JSON.stringify({ record: "entry", id: 0, name, ...json }))
          assert.deepStrictEqual([...written].sort(), [...texts].sort(), name)
          const end = { record: "mapEnd", id: 0, name, entries: entries.length, truncated: false, problem: null }
          assert.strictEqual(withoutIds(lines.at(-2)!), JSON.stringify(end))
          assert.strictEqual(lines.at(-1), "{\"record\":\"end\",\"losses\":0}")
        }
      }))

    it.effect("a limit cuts a map's entries and says so; as many as there are cut nothing", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const reader = yield* maps.reader(yield* named("ct_array"))
        for (const [limit, entries, truncated] of [[0, 0, true], [2, 2, true], [3, 3, false]] as const) {
          const lines = yield* recordsOf([reader], { limit })
          assert.lengthOf(lines.filter((line) => line.startsWith("{\"record\":\"entry\"")), entries)
          assert.strictEqual(
            withoutIds(lines.at(-2)!),
            JSON.stringify({ record: "mapEnd", id: 0, name: "ct_array", entries, truncated, problem: null })
          )
        }
      }))

    it.effect("entries that are programs and maps are named, their bytes are the ids", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const program = (yield* maps.programs).items.find(({ name }) => name === "fill_contract")!
        const bytes = (id: number): string => hex(new Uint8Array(Uint32Array.of(id).buffer))
        assert.deepStrictEqual<unknown>(yield* valuesOf("ct_progs"), [
          { key: 2, value: { ...program }, bytes: bytes(program.id) }
        ])
        const { id, name, type } = yield* named("ct_inner")
        const inner = { value: { id, name, type }, bytes: bytes(id) }
        assert.deepStrictEqual<unknown>(yield* valuesOf("ct_outer"), [{ key: 1, ...inner }])
        // libbpf gives hash_of_maps no BTF: its key is bytes.
        assert.deepStrictEqual<unknown>(yield* valuesOf("ct_outer_hash"), [{ key: "02000000", ...inner }])
        const lines = yield* recordsOf([yield* maps.reader(yield* named("ct_outer"))], { held: true })
        assert.strictEqual(
          withoutIds(lines[2]),
          "{\"record\":\"entry\",\"id\":0,\"name\":\"ct_outer\",\"key\":1,\"value\":{\"id\":0,\"name\":\"ct_inner\"," +
            "\"type\":\"array\",\"entries\":[{\"key\":0,\"value\":0},{\"key\":1,\"value\":11}],\"truncated\":false,\"problem\":null}}"
        )
      }))

    it.effect("queues and stacks begin with what would be popped next, and say when more cannot be seen", () =>
      Effect.gen(function*() {
        const { maps, queues } = yield* Subject
        for (const [name, values] of [["ct_queue", [10, 11, 12]], ["ct_stack", [12, 11, 10]]] as const) {
          const entries: Array<Json> = []
          const problem = yield* Stream.runForEach(
            maps.entries(yield* named(name)),
            (entry) => Effect.sync(() => void entries.push(plain(entry).json))
          ).pipe(Effect.as(null), Effect.catchTag("MapProblem", ({ problem }) => Effect.succeed(problem.kind)))
          const expected = values.map((value, key) => ({
            key,
            value: hex(new Uint8Array(Uint32Array.of(value).buffer))
          }))
          assert.deepStrictEqual<unknown>(
            [entries, problem],
            queues === "all" ? [expected, null] : [expected.slice(0, 1), "unsupported"],
            name
          )
        }
      }))

    it.effect("a struct_ops map is the kernel's struct, with its programs for its functions", () =>
      Effect.gen(function*() {
        const { maps } = yield* Subject
        const { items: programs } = yield* maps.programs
        const [{ key, value }] = yield* Effect.map(
          valuesOf("ct_ops"),
          (rows) => rows.map((row) => ({ key: row.key, value: "value" in row ? Object(row.value) : {} }))
        )
        const member = (name: string) => ({ ...programs.find((program) => program.name === name)! })
        assert.deepInclude(value, {
          name: "ktstr_contract",
          ssthresh: member("ct_ssthresh"),
          cong_avoid: member("ct_avoid"),
          undo_cwnd: member("ct_undo"),
          pkts_acked: "0x0"
        })
        assert.strictEqual(key, 0)
        const { details } = yield* maps.reader(yield* named("ct_ops"))
        assert.deepInclude(details ?? {}, { struct: "tcp_congestion_ops", state: "BPF_STRUCT_OPS_STATE_INUSE" })
      }))

    it.effect("after its scope closed every map fails as unreadable, and none of its entries is given", () =>
      Effect.gen(function*() {
        const { maps, release } = yield* Subject
        const { items } = yield* maps.list
        const kept = yield* Effect.forEach(items.filter(isOurs), maps.reader)
        yield* release
        for (const reader of kept) {
          const walk = reader.walk!()
          assert.isFalse(walk.next(), reader.info.name)
          assert.strictEqual(problemOf(reader, walk)?.kind, "unreadable", reader.info.name)
          const error = yield* Effect.flip(Stream.runDrain(maps.entries(reader.info)))
          assert.strictEqual(error._tag, "MapProblem")
          if (error._tag === "MapProblem") assert.strictEqual(error.problem.kind, "unreadable", reader.info.name)
          assert.match(error.message, /its scope has closed/, reader.info.name)
        }
      }))
  })
