import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { EntryWalk } from "../../../src/bpf/EntryWalk.ts"
import { MapAccessor } from "../../../src/bpf/MapAccessor.ts"
import { MapInfo } from "../../../src/bpf/MapInfo.ts"
import type { MapReader } from "../../../src/bpf/MapReader.ts"
import { DUMP_VERSION, DumpDocument, DumpRecord, type Header } from "../../../src/bpf/Report.ts"
import { parseDump } from "../../../src/bpf/report/DiffInput.ts"
import { dump, ndjson } from "../../../src/bpf/report/DumpSnapshot.ts"
import { jsonDocument, ndjsonRecords } from "../../../src/bpf/report/DumpWriter.ts"
import { changes, sideOfDocument, sideOfReaders } from "../../../src/bpf/report/SnapshotDiff.ts"
import { Btf } from "../../../src/btf/Btf.ts"
import { compile } from "../../../src/btf/render/Codec.ts"
import { encodeKey } from "../../../src/btf/render/ValueEncoder.ts"
import { WalkProblems } from "../../../src/core/WalkProblems.ts"
import { compileC } from "../../btf/compileC.ts"

const SOURCE = `
typedef unsigned long long u64;
struct cgrp_llc { u64 cgrp; int llc; };
struct comm_key { char comm[8]; };
struct cgrp_llc v1; struct comm_key v2;
`
const btf = Either.getOrThrow(Btf.parse(compileC(SOURCE).btf, { subject: "test" }))
const typeId = (name: string): number => btf.idsByName(name)[0]

/** Keys and values of a made map: bytes in hex; in per-CPU maps values by CPU. */
type Made = ReadonlyArray<readonly [key: string, ...values: ReadonlyArray<string | null>]>

const viewOf = (hex: string): DataView => new DataView(Uint8Array.from(Buffer.from(hex, "hex")).buffer)

const readerOf = (key: string, value: string, cpus: number | null, made: Made): MapReader => ({
  info: new MapInfo({
    id: 1,
    name: "made",
    type: cpus === null ? "hash" : "percpu_hash",
    flags: 0,
    keySize: compile(btf, typeId(key)).size,
    valueSize: compile(btf, typeId(value)).size,
    maxEntries: 8,
    keyTypeId: typeId(key),
    valueTypeId: typeId(value),
    btfId: 1
  }),
  consistency: "frozen",
  key: compile(btf, typeId(key)),
  value: compile(btf, typeId(value)),
  cpus,
  walk: () => new MadeWalk(made),
  details: null,
  problem: null
})

class MadeWalk implements EntryWalk {
  readonly problems = new WalkProblems()
  readonly keyAt = 0
  readonly valueAt = 0
  keyView = viewOf("")
  valueView = viewOf("")
  private index = -1

  constructor(private readonly made: Made) {}

  next(): boolean {
    this.index++
    if (this.index >= this.made.length) return false
    this.keyView = viewOf(this.made[this.index][0])
    return true
  }

  value(copy: number): boolean {
    const hex = this.made[this.index][copy + 1]
    if (typeof hex !== "string") return false
    this.valueView = viewOf(hex)
    return true
  }

  get keyLength(): number {
    return this.keyView.byteLength
  }

  get valueLength(): number {
    return this.valueView.byteLength
  }
}

const header: Header = {
  schema: "single",
  version: DUMP_VERSION,
  source: { kind: "image", path: "a" },
  kernel: { release: "6.12", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 2 },
  freeze: null
}
const dumpOf = (reader: MapReader) => ({ header, readers: [reader], programs: [], problems: [], limit: Infinity })
const textOf = (pieces: Iterable<Uint8Array>): string =>
  Buffer.concat(Array.from(pieces, (piece) => piece.slice())).toString()

const LLC = "0100000000000000" + "03000000"
const padded = (padding: string): string => LLC + padding
const R = "5200000000000000"
const R_A = "5200410000000000"

describe("keys and values whose form hides bytes", () => {
  const before = readerOf("cgrp_llc", "comm_key", null, [[padded("00000000"), R], [padded("adde0000"), R_A]])
  const after = readerOf("cgrp_llc", "comm_key", null, [[padded("00000000"), R], [padded("adde0000"), R]])

  it("have the bytes beside them in documents and records, and only they", () => {
    const key = { cgrp: 1, llc: 3 }
    const entries = [
      { key, value: { comm: "R" } },
      { key, keyBytes: padded("adde0000"), value: { comm: "R" }, valueBytes: R_A }
    ]
    const document = Schema.decodeUnknownSync(DumpDocument)(JSON.parse(textOf(jsonDocument(dumpOf(before)))))
    assert.deepStrictEqual<unknown>(document.maps[0].entries, entries)
    const lines = textOf(ndjsonRecords(dumpOf(before)))
    const records = lines.trim().split("\n").map((line) => Schema.decodeUnknownSync(DumpRecord)(JSON.parse(line)))
    assert.deepStrictEqual<unknown>(
      records.filter(({ record }) => record === "entry"),
      entries.map((entry) => ({ record: "entry", id: 1, name: "made", ...entry }))
    )
    const read = Either.getOrThrow(parseDump(lines, "lines"))
    assert.deepStrictEqual([...changes(sideOfDocument(read), sideOfDocument(document))], [])
    assert.deepStrictEqual([...changes(sideOfReaders(header, [before], []), sideOfDocument(read))], [])
  })

  it("have them by CPU in per-CPU maps", () => {
    const reader = readerOf("cgrp_llc", "comm_key", 3, [[padded("00000000"), R, null, R_A], [
      padded("01000000"),
      R,
      R,
      R
    ]])
    const [map] = JSON.parse(textOf(jsonDocument(dumpOf(reader)))).maps
    assert.deepStrictEqual(map.entries, [
      { key: { cgrp: 1, llc: 3 }, cpus: [{ comm: "R" }, null, { comm: "R" }], cpuBytes: [null, null, R_A] },
      {
        key: { cgrp: 1, llc: 3 },
        keyBytes: padded("01000000"),
        cpus: [{ comm: "R" }, { comm: "R" }, { comm: "R" }]
      }
    ])
  })

  it("pair by bytes, and change by bytes, in dumps that were kept and in readers", () => {
    const kept = (reader: MapReader) =>
      sideOfDocument(Either.getOrThrow(parseDump(textOf(jsonDocument(dumpOf(reader))), "kept")))
    const expected = [{
      change: "entryChanged",
      id: 1,
      name: "made",
      type: "hash",
      key: { cgrp: 1, llc: 3 },
      keyBytes: padded("adde0000"),
      fields: [],
      bytes: { before: R_A, after: null }
    }]
    const live = (reader: MapReader) => sideOfReaders(header, [reader], [])
    for (const sides of [[kept(before), kept(after)], [live(before), live(after)]]) {
      assert.deepStrictEqual<unknown>([...changes(sides[0], sides[1])], expected)
      assert.deepStrictEqual([...changes(sides[0], sides[0])], [])
    }
  })

  it("are named by their bytes where a key is given", () => {
    const bytes = new Uint8Array(16)
    for (const given of [padded("adde0000"), `0x${padded("adde0000")}`]) {
      bytes.fill(7)
      assert.isTrue(Either.isRight(encodeKey(btf, typeId("cgrp_llc"), given, bytes)))
      assert.strictEqual(Buffer.from(bytes).toString("hex"), padded("adde0000"))
    }
    assert.isTrue(Either.isLeft(encodeKey(btf, typeId("cgrp_llc"), "0xadde", bytes)))
    // what a type takes as text stays text, and numbers stay numbers
    const text = new Uint8Array(8)
    assert.isTrue(Either.isRight(encodeKey(btf, typeId("comm_key"), { comm: "R" }, text)))
    assert.strictEqual(Buffer.from(text).toString("hex"), R)
    assert.isTrue(Either.isRight(encodeKey(btf, typeId("unsigned long long"), "0x0a0000000000000f", text)))
    assert.strictEqual(Buffer.from(text).toString("hex"), "0f0000000000000a")
  })

  it.effect("are in the document and the records that the library gives of a snapshot", () =>
    Effect.gen(function*() {
      const source = {
        header,
        maps: MapAccessor.make({
          maps: { items: [before.info], problems: [] },
          programs: { items: [{ id: 7, name: "p", type: "xdp" }], problems: [] },
          reader: () => Effect.succeed(before)
        })
      }
      const document = yield* dump(source)
      assert.deepStrictEqual<unknown>(document, {
        ...JSON.parse(textOf(jsonDocument(dumpOf(before)))),
        programs: [{ id: 7, name: "p", type: "xdp" }]
      })
      const lines = textOf(yield* Stream.runCollect(ndjson(source)))
      const read = Either.getOrThrow(parseDump(lines, "lines"))
      assert.deepStrictEqual([...changes(sideOfDocument(document), sideOfDocument(read))], [])
      assert.lengthOf(read.maps[0].entries, 2)
    }))
})
