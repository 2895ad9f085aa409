import { assert, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { DUMP_VERSION, DumpDocument, type Header } from "../../../src/bpf/Report.ts"
import { Change } from "../../../src/bpf/report/DiffChange.ts"
import { changedCopies, changedFields } from "../../../src/bpf/report/DiffFields.ts"
import { parseDump } from "../../../src/bpf/report/DiffInput.ts"
import { changes, diffSnapshots, NotADump, sideOfDocument } from "../../../src/bpf/report/SnapshotDiff.ts"
import type { Json } from "../../../src/btf/render/RenderedValue.ts"
import { formatReason } from "../../../src/core/Reason.ts"

const headerAt = (at: string | null): Header => ({
  schema: "single",
  version: DUMP_VERSION,
  source: { kind: "image", path: "guest.mem" },
  kernel: { release: "6.12", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 2 },
  freeze: at === null ? null : { at, millis: 1, cpus: 2 }
})
type Entry = DumpDocument["maps"][number]["entries"][number]
const documentOf = (
  maps: ReadonlyArray<{ readonly id: number; readonly name?: string; readonly entries: ReadonlyArray<Entry> }>,
  at: string | null = null
): DumpDocument => ({
  ...headerAt(at),
  maps: maps.map(({ entries, id, name = `map${id}` }) => ({
    id,
    name,
    type: "hash",
    flags: 0,
    keySize: 4,
    valueSize: 8,
    maxEntries: 100,
    keyTypeId: 0,
    valueTypeId: 0,
    btfId: null,
    details: null,
    consistency: "frozen",
    entries,
    truncated: false,
    problem: null
  })),
  programs: [],
  problems: []
})
const diffOf = (from: DumpDocument, to: DumpDocument): ReadonlyArray<Change> => [
  ...changes(sideOfDocument(from), sideOfDocument(to))
]

describe("fields", () => {
  it("have paths, exact deltas and rates", () => {
    const before: Json = {
      count: 5,
      big: "18446744073709551000",
      text: "12",
      list: [1, { a: 2.5 }],
      gone: 1,
      ip: "0x5"
    }
    const after: Json = { count: 3, big: "18446744073709551615", text: "13", list: [1, { a: 4 }], came: 2, ip: "0x6" }
    const entry = { cpu: null, delta: null, rate: null }
    assert.deepStrictEqual(changedFields(before, after, 2), [
      { path: "count", cpu: null, before: 5, after: 3, delta: -2, rate: -1 },
      { path: "big", cpu: null, before: before.big, after: after.big, delta: 615, rate: 307.5 },
      { ...entry, path: "text", before: "12", after: "13" },
      { ...entry, path: "list[1].a", before: 2.5, after: 4, rate: 0.75 },
      { ...entry, path: "gone", before: 1, after: null },
      { ...entry, path: "ip", before: "0x5", after: "0x6" },
      { ...entry, path: "came", before: null, after: 2 }
    ])
    assert.deepStrictEqual(changedFields(1, 4, null), [{
      path: "",
      cpu: null,
      before: 1,
      after: 4,
      delta: 3,
      rate: null
    }])
    assert.deepStrictEqual(changedFields([1, 2], [1], null).map(({ path }) => path), [""])
  })

  it("of CPUs are summed where several changed", () => {
    const copies = (a: number, b: number) => [{ n: a, same: 1 }, null, { n: b, same: 1 }]
    assert.deepStrictEqual(changedCopies(copies(1, 10), copies(4, 30), 10), [
      { path: "n", cpu: 0, before: 1, after: 4, delta: 3, rate: 0.3 },
      { path: "n", cpu: 2, before: 10, after: 30, delta: 20, rate: 2 },
      { path: "n", cpu: "all", before: 11, after: 34, delta: 23, rate: 2.3 }
    ])
  })
})

const entries = FastCheck.uniqueArray(
  FastCheck.record({
    key: FastCheck.oneof(
      FastCheck.nat(9),
      FastCheck.record({ id: FastCheck.nat(3), name: FastCheck.string({ maxLength: 2 }) })
    ),
    value: FastCheck.oneof(
      FastCheck.integer(),
      FastCheck.record({ a: FastCheck.nat(2), b: FastCheck.array(FastCheck.nat(1)) })
    )
  }),
  { selector: ({ key }) => JSON.stringify(key), maxLength: 12 }
)

/** Set what a path says in a copy of a value. */
const put = (value: Json, path: string, to: unknown): unknown => {
  if (path === "") return to
  const copy: unknown = structuredClone(value)
  let at = copy as Record<string, unknown>
  const names = path.split(/[.[\]]+/).filter((name) => name !== "")
  for (const name of names.slice(0, -1)) at = at[name] as Record<string, unknown>
  at[names.at(-1)!] = to
  return copy
}

describe("changes", () => {
  it.prop("make the second dump of the first", [entries, entries], ([first, second]) => {
    const from = documentOf([{ id: 3, entries: first }])
    const to = documentOf([{ id: 3, entries: second }])
    const result = new Map<string, unknown>(first.map(({ key, value }) => [JSON.stringify(key), value]))
    for (const change of diffOf(from, to)) {
      assert.isTrue(Schema.is(Change)(change), JSON.stringify(change))
      if (change.change === "entryAdded") result.set(JSON.stringify(change.key), change.value)
      else if (change.change === "entryRemoved") assert.isTrue(result.delete(JSON.stringify(change.key)))
      else if (change.change === "entryChanged") {
        const key = JSON.stringify(change.key)
        let value = result.get(key) as Json
        for (const { after, path } of change.fields) value = put(value, path, after) as Json
        result.set(key, value)
      } else assert.fail(JSON.stringify(change))
    }
    const expected = new Map(second.map(({ key, value }) => [JSON.stringify(key), value]))
    assert.deepStrictEqual([...result].sort(), [...expected].sort())
  }, { fastCheck: { numRuns: 1000 } })

  it.effect("come as a stream, with maps and programs that came and went", () =>
    Effect.gen(function*() {
      const from: DumpDocument = {
        ...documentOf(
          [{ id: 1, entries: [{ key: 1, value: 10 }] }, { id: 2, entries: [] }],
          "2026-01-01T00:00:00.000Z"
        ),
        programs: [{ id: 4, name: "p", type: "xdp" }, { id: 5, name: "q", type: "xdp" }]
      }
      const to: DumpDocument = {
        ...documentOf(
          [{ id: 1, entries: [{ key: 1, value: 30 }] }, { id: 2, name: "other", entries: [] }],
          "2026-01-01T00:00:04.000Z"
        ),
        programs: [{ id: 5, name: "q", type: "xdp" }, { id: 6, name: "p", type: "xdp" }]
      }
      const found = yield* Stream.runCollect(diffSnapshots(sideOfDocument(from), sideOfDocument(to)))
      assert.deepStrictEqual(Chunk.toReadonlyArray(found), [
        {
          change: "entryChanged",
          id: 1,
          name: "map1",
          type: "hash",
          key: 1,
          fields: [{ path: "", cpu: null, before: 10, after: 30, delta: 20, rate: 5 }]
        },
        { change: "mapRemoved", id: 2, name: "map2", type: "hash" },
        { change: "mapAdded", id: 2, name: "other", type: "hash" },
        { change: "programRemoved", id: 4, name: "p", type: "xdp" },
        { change: "programAdded", id: 6, name: "p", type: "xdp" }
      ])
    }))

  it("of different boots compare what has the same name, the first with the first, without rates", () => {
    const bootOf = (document: DumpDocument, boot: string | null): DumpDocument => ({
      ...document,
      kernel: { ...document.kernel, boot }
    })
    const from = documentOf([
      { id: 3, name: "x", entries: [{ key: 1, value: 1 }] },
      { id: 4, name: "twice", entries: [{ key: 1, value: 4 }] },
      { id: 5, name: "twice", entries: [{ key: 1, value: 5 }] }
    ], "2026-01-01T00:00:00.000Z")
    const to = documentOf([
      { id: 9, name: "twice", entries: [{ key: 1, value: 5 }] },
      { id: 8, name: "twice", entries: [{ key: 1, value: 4 }] },
      { id: 3, name: "other", entries: [] },
      { id: 7, name: "x", entries: [{ key: 1, value: 3 }] }
    ], "2026-01-01T00:00:02.000Z")
    const fields = (rate: number | null) => [{ path: "", cpu: null, before: 1, after: 3, delta: 2, rate }]
    assert.deepStrictEqual(diffOf(bootOf(from, "aa"), bootOf(to, "bb")), [
      {
        change: "problem",
        problem: {
          kind: "unsupported",
          text: "the two come from different boots (6.12 (aa), 6.12 (bb)): comparing by name and type, since ids differ"
        }
      },
      { change: "mapAdded", id: 3, name: "other", type: "hash" },
      { change: "entryChanged", id: 7, name: "x", type: "hash", key: 1, fields: fields(null) }
    ])
    // Of one boot, or where one side does not say, ids count.
    for (const [a, b] of [["aa", "aa"], ["aa", null], [null, null]] as const) {
      const found = diffOf(bootOf(from, a), bootOf(to, b))
      assert.lengthOf(found.filter(({ change }) => change === "mapRemoved"), 3)
      assert.lengthOf(found.filter(({ change }) => change === "mapAdded"), 4)
    }
    const [changed] = diffOf(bootOf(from, "aa"), {
      ...bootOf(documentOf([{ id: 3, name: "x", entries: [{ key: 1, value: 3 }] }], "2026-01-01T00:00:02.000Z"), "aa")
    })
    assert.deepInclude(changed, { change: "entryChanged", fields: fields(1) })
  })

  it("say what could not be compared", () => {
    const from = documentOf([{ id: 1, entries: [{ key: 1, value: 1 }, { key: 1, value: 2 }] }])
    const broken: DumpDocument = {
      ...from,
      kernel: { ...from.kernel, kaslrOffset: "0x100" },
      maps: [{ ...from.maps[0], entries: [], problem: { kind: "unreadable", text: "bucket 3: 0x1000 is not mapped" } }]
    }
    assert.deepStrictEqual(
      diffOf(from, broken).flatMap((change) => change.change === "problem" ? [formatReason(change.problem)] : []),
      [
        "unsupported: the two come from different boots (6.12, 6.12): comparing by name and type, since ids differ",
        "unreadable: map 1 (map1) of the second: bucket 3: 0x1000 is not mapped",
        "corrupted: map 1 (map1): entries that repeat a key: 1"
      ]
    )
    assert.deepStrictEqual(diffOf(from, from).map(({ change }) => change), ["problem"])
  })
})

describe("a dump in a file", () => {
  const document = documentOf([{ id: 1, entries: [{ key: 1, value: { a: 1 } }, { key: 2, cpus: [1, null] }] }])
  const [{ entries: listed, problem, truncated, ...map }] = document.maps
  const { maps: _, problems: __, programs: ___, ...header } = document
  const lines = [
    { record: "dump", ...header },
    { record: "map", ...map },
    ...listed.map((entry) => ({ record: "entry", id: 1, name: "map1", ...entry })),
    { record: "mapEnd", id: 1, name: "map1", entries: 2, truncated, problem },
    { record: "program", id: 7, name: "p", type: "xdp" }
  ].map((record) => JSON.stringify(record)).join("\n")

  it("of another version is refused by its number", () => {
    for (const text of [JSON.stringify({ ...document, version: 1 }), lines.replace("\"version\":2", "\"version\":1")]) {
      const error = Either.getOrThrow(Either.flip(parseDump(text, "old.json")))
      assert.strictEqual(
        error.message,
        "old.json is not a dump: it is a dump of version 1, and this ktstr reads version 2; make one with ktstr dump --json"
      )
    }
  })

  it("is read as a document and as records, alike", () => {
    const whole = Either.getOrThrow(parseDump(JSON.stringify(document, null, 1), "a.json"))
    const recorded = Either.getOrThrow(parseDump(`${lines}\n`, "a.ndjson"))
    assert.deepStrictEqual(diffOf(whole, recorded), [{ change: "programAdded", id: 7, name: "p", type: "xdp" }])
  })

  it.each([
    ["", /^a is not a dump: Unexpected end of JSON input/],
    ["{}", /^a is not a dump: /],
    [
      "[".repeat(100_000),
      /^a is not a dump: its values are nested more than 512 deep, which no document of ours is; make one/
    ],
    [`{"[[\\"[":${"{\"a\":".repeat(512)}`, /^a is not a dump: its values are nested more than 512 deep/],
    [`["${"[{".repeat(600)}\\"${"[".repeat(600)}"`, /^a is not a dump: (?!its values)/],
    [`${lines}\n{"record":"entry"`, /^a is not a dump: line 7: /],
    [lines.slice(0, -1), /^a is not a dump: line 6: /]
  ])("is refused when it is none: %#", (text, expected) => {
    const error = Either.getOrThrow(Either.flip(parseDump(text, "a")))
    assert.isTrue(error instanceof NotADump)
    assert.match(error.message, expected)
  })
})
