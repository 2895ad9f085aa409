import { assert, describe, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { EntryWalk } from "../../../src/bpf/EntryWalk.ts"
import { MapAccessor } from "../../../src/bpf/MapAccessor.ts"
import { MapInfo } from "../../../src/bpf/MapInfo.ts"
import type { MapReader } from "../../../src/bpf/MapReader.ts"
import { DUMP_VERSION, type Header } from "../../../src/bpf/Report.ts"
import { jsonDocument, ndjsonRecords } from "../../../src/bpf/report/DumpWriter.ts"
import { watchMaps } from "../../../src/bpf/report/MapWatch.ts"
import { changes, sideOfReaders } from "../../../src/bpf/report/SnapshotDiff.ts"
import { derivedCodec, intOf, missing, objectOf, recurringCodec } from "../../../src/bpf/values/DerivedCodec.ts"
import { indexCodec } from "../../../src/bpf/values/IndexCodec.ts"
import type { Codec } from "../../../src/btf/render/Codec.ts"
import type { RenderedValue } from "../../../src/btf/render/RenderedValue.ts"
import { dumpText } from "../../../src/cli/maps/present.ts"
import { Losses } from "../../../src/core/Losses.ts"
import { absent, unreadable } from "../../../src/core/Reason.ts"
import { WalkProblems } from "../../../src/core/WalkProblems.ts"

const LOST = "0x10 is not mapped"

/** 0 cannot be read, 1 this kernel does not have, another number is whole. */
const shown = (view: DataView, at: number): RenderedValue => {
  const word = view.getUint32(at, true)
  const task = word === 0 ? missing(unreadable(LOST)) : word === 1 ? missing(absent("no tasks")) : intOf(word)
  return objectOf({ owners: { _tag: "array", elements: [intOf(7), objectOf({ task })], omitted: 0 } })
}

/** Entries of one 32-bit word, or of one for each CPU. */
class Words implements EntryWalk {
  readonly problems = new WalkProblems()
  readonly keyView = new DataView(new ArrayBuffer(4))
  readonly keyAt = 0
  readonly keyLength = 4
  readonly valueView: DataView
  valueAt = 0
  readonly valueLength = 4
  private index = -1

  constructor(private readonly words: ReadonlyArray<number>, private readonly copies: number) {
    this.valueView = new DataView(Uint32Array.from(words).buffer)
  }

  next(): boolean {
    this.index += 1
    this.keyView.setUint32(0, this.index, true)
    return this.index * this.copies < this.words.length
  }

  value(copy: number): boolean {
    this.valueAt = 4 * (this.index * this.copies + copy)
    return true
  }
}

const readerOf = (value: Codec, words: ReadonlyArray<number>, cpus: number | null = null): MapReader => ({
  info: new MapInfo({
    id: 1,
    name: "made",
    type: cpus === null ? "hash" : "percpu_hash",
    flags: 0,
    keySize: 4,
    valueSize: 4,
    maxEntries: 8,
    keyTypeId: 0,
    valueTypeId: 0,
    btfId: 0
  }),
  consistency: "frozen",
  key: indexCodec,
  value,
  cpus,
  walk: () => new Words(words, cpus ?? 1),
  details: null,
  problem: null
})

const header: Header = {
  schema: "single",
  version: DUMP_VERSION,
  source: { kind: "image", path: "a" },
  kernel: { release: "6.12", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 2 },
  freeze: null
}
const dumpOf = (...readers: ReadonlyArray<MapReader>) => ({
  header,
  readers,
  programs: [],
  problems: [],
  limit: Infinity,
  losses: new Losses()
})
const textOf = (pieces: Iterable<Uint8Array>): string =>
  Buffer.concat(Array.from(pieces, (piece) => piece.slice())).toString()

/** What a watch says of the second of two readings. */
const secondTick = (readings: Array<ReadonlyArray<MapReader>>) =>
  Effect.map(
    Stream.runCollect(Stream.take(watchMaps(Effect.sync(() => readings.shift() ?? []), "1 millis"), 2)),
    (ticks) => Chunk.unsafeGet(ticks, 1)
  )

const codecs = { "a codec": derivedCodec(shown), "one of recurring values": recurringCodec([0], shown) }
const inside = { kind: "unreadable", text: `inside an entry: ${LOST}` }
const twice = { kind: "unreadable", text: `inside an entry: ${LOST} (and 1 more)` }

for (const [name, codec] of Object.entries(codecs)) {
  describe(`what ${name} could not read inside entries`, () => {
    it("is counted and said by documents", () => {
      const dump = dumpOf(
        readerOf(codec, [0, 5, 1, 0]),
        readerOf(codec, [5, 1]),
        readerOf(codec, [5, 0, 5, 5], 2)
      )
      const { losses, maps } = JSON.parse(textOf(jsonDocument(dump)))
      assert.deepStrictEqual(maps.map(({ problem }: { readonly problem: unknown }) => problem), [twice, null, inside])
      const owners = (task: unknown) => ({ owners: [7, { task }] })
      assert.deepStrictEqual(maps[0].entries.map(({ value }: { readonly value: unknown }) => value), [
        owners({ $unreadable: LOST }),
        owners(5),
        owners({ $absent: "no tasks" }),
        owners({ $unreadable: LOST })
      ])
      assert.strictEqual(losses, 2)
      assert.strictEqual(dump.losses.count, 2)
      assert.strictEqual(dump.losses.first, `map 1 made: unreadable: ${twice.text}`)
    })

    it("is counted and said by records", () => {
      const records = textOf(ndjsonRecords(dumpOf(readerOf(codec, [0, 5]), readerOf(codec, [1])))).trim().split("\n")
        .map((line) => JSON.parse(line))
      const ends = records.filter(({ record }) => record === "mapEnd")
      assert.deepStrictEqual(ends.map(({ problem }) => problem), [inside, null])
      assert.deepStrictEqual(records.at(-1), { record: "end", losses: 1 })
    })

    it("is counted and said for people", () => {
      const dump = dumpOf(readerOf(codec, [0, 0]), readerOf(codec, [0, 1], 2))
      const text = textOf(dumpText(dump))
      assert.include(text, `.task = <unreadable: ${LOST}>`)
      assert.include(text, `unreadable: ${twice.text}`)
      assert.include(text, "2 parts could not be read whole")
      assert.strictEqual(dump.losses.count, 2)
    })

    it.effect("makes the library's entries end with MapProblem, after all of them", () =>
      Effect.gen(function*() {
        for (const [words, cpus] of [[[0, 5, 1, 0], null], [[5, 0, 0, 5], 2]] as const) {
          const reader = readerOf(codec, words, cpus)
          const maps = MapAccessor.make({
            maps: { items: [reader.info], problems: [] },
            programs: { items: [], problems: [] },
            reader: () => Effect.succeed(reader)
          })
          let seen = 0
          const error = yield* Effect.flip(
            Stream.runForEach(maps.entries(reader.info), () => Effect.sync(() => void seen++))
          )
          assert(error._tag === "MapProblem")
          assert.deepStrictEqual([seen, error.problem], [words.length / (cpus ?? 1), twice])
        }
      }))

    it("is a problem of a comparison", () => {
      const side = (word: number) => sideOfReaders(header, [readerOf(codec, [word])], [])
      const problems = [...changes(side(0), side(0))]
      assert.deepStrictEqual<unknown>(
        problems,
        ["first", "second"].map((which) => ({
          change: "problem",
          problem: { kind: "unreadable", text: `map 1 (made) of the ${which}: ${inside.text}` }
        }))
      )
    })

    it.live("is said of a reading, and hides no entry that went", () =>
      Effect.gen(function*() {
        const readings = [[0, 5], [0]].map((words) => [readerOf(codec, words)])
        const { changes, maps } = yield* secondTick(readings)
        assert.deepStrictEqual<unknown>(maps, [{ id: 1, name: "made", entries: 1, problem: inside }])
        assert.deepStrictEqual(changes.map(({ change }) => change), ["entryRemoved"])
      }))
  })
}

it.live("a reading with more changes than a call takes arguments is told whole", () =>
  Effect.gen(function*() {
    const count = 140_000
    const readings = [[], Array.from({ length: count }, () => 5)].map((words) => [readerOf(indexCodec, words)])
    assert.strictEqual((yield* secondTick(readings)).changes.length, count)
  }))

it("text of the kernel is written escaped by every codec", () => {
  const text = "\x1b[2J\u202e\u2028\u009b"
  const render = (): RenderedValue => ({ _tag: "string", value: text })
  for (const codec of [derivedCodec(render), recurringCodec([0], render)]) {
    const json = textOf(jsonDocument(dumpOf(readerOf(codec, [1, 1]))))
    assert.match(json, /^[ -~\n]*$/)
    assert.deepStrictEqual(
      JSON.parse(json).maps[0].entries.map(({ value }: { readonly value: unknown }) => value),
      [text, text]
    )
  }
})

it("a dump counts what of the scheduler's state could not be read, not what was being changed", () => {
  const sched = {
    problems: [{ kind: "unreadable", text: "the list of processes: 0x1 lies in memory that is not there" }],
    dispatchQueues: [{ problem: { kind: "corrupted", text: "it counts 2 tasks, but its list has 1" } }],
    pressure: { kind: "absent", text: "no psi_system" }
  }
  const dump = { ...dumpOf(), sched }
  assert.strictEqual(JSON.parse(textOf(jsonDocument(dump))).losses, 1)
  assert.strictEqual(dump.losses.first, "unreadable: the list of processes: 0x1 lies in memory that is not there")
})
