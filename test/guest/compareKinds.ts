import * as FileSystem from "@effect/platform/FileSystem"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { MapInfo } from "../../src/bpf/MapInfo.ts"
import { DumpDocument, DumpRecord } from "../../src/bpf/Report.ts"
import { jsonDocument, ndjsonRecords } from "../../src/bpf/report/DumpWriter.ts"
import { bootAndFreeze, type Snapshot } from "../../src/Ktstr.ts"
import { Members, parseEntries, parseMaps, parsePrinted, type PrintedEntry, PrintedTypes } from "../support/bpftool.ts"
import { bootSeconds, parseCapture, SAY_BOOTED } from "../support/capture.ts"
import { compileBpf, compileKindsFill, type GuestArch, HostLive, scratch } from "../support/guest.ts"
import { BY_BYTES, byKey, comparable, compareEntries, KEYED, listed, withoutLeftovers } from "./entries.ts"

type Entry = ReturnType<typeof comparable>

/** What kinds-fill.c says that it put in. */
interface Ring {
  readonly consumer: number
  readonly producer: number
  readonly records: ReadonlyArray<readonly [position: number, state: string, length: number, byte: number]>
}
interface Filled {
  readonly queue_wrapped: ReadonlyArray<number>
  readonly stack_popped: ReadonlyArray<number>
  readonly queue_empty: ReadonlyArray<number>
  readonly bloom_known: { readonly hashFunctions: number; readonly from: number; readonly to: number }
  readonly ring_wrapped: Ring
  readonly user_ringbuf: Ring
  readonly stack_traces: { readonly id: number; readonly frames: ReadonlyArray<string> }
  readonly stack_build_ids: { readonly id: number }
  readonly arena?: { readonly at: string; readonly pages: ReadonlyArray<number> }
  readonly prog_array: Readonly<Record<string, number>>
  readonly cgrp_storage?: unknown
  readonly cgroup_storage: { readonly cgroup: number; readonly path: string }
}
const OBJECTS = [
  "perf_events",
  "cgroup_array",
  "devmap",
  "devmap_hash",
  "cpumap",
  "xskmap",
  "sockmap_wide",
  "sockhash",
  "reuseport"
]
const STORAGES = ["sk_storage", "inode_storage", "task_storage", "cgrp_storage"]

/** A word through Bob Jenkins' hash as the kernel has it: include/linux/jhash.h `jhash2` of one u32, v6.12. */
const jhashOfWord = (word: number, seed: number): number => {
  const rotated = (x: number, bits: number): number => (x << bits) | (x >>> (32 - bits))
  const start = (0xdeadbeef + 4 + seed) | 0
  let a = (start + word) | 0
  let b = start
  let c = start
  c = ((c ^ b) - rotated(b, 14)) | 0
  a = ((a ^ c) - rotated(c, 11)) | 0
  b = ((b ^ a) - rotated(a, 25)) | 0
  c = ((c ^ b) - rotated(b, 16)) | 0
  a = ((a ^ c) - rotated(c, 4)) | 0
  b = ((b ^ a) - rotated(a, 14)) | 0
  c = ((c ^ b) - rotated(b, 24)) | 0
  return c >>> 0
}

/**
 * Boot a guest, fill maps of every type that its kernel has, let bpftool print them inside, freeze it and compare.
 * Gives the number of maps and of entries that were equal, and how long the kernel booted.
 */
export const compareKinds = (
  options: {
    readonly kernel: string
    readonly ops: "congestion" | "scheduler"
    readonly bpftool?: string
    readonly arch?: GuestArch
  }
) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const directory = yield* scratch
    const objects = yield* compileBpf(directory, "types", "kinds", options.ops)
    const consoleFile = `${directory}/console`
    const sources = new URL("../bpf-src/", import.meta.url).pathname
    const snapshot = yield* bootAndFreeze({
      kernel: options.kernel,
      cpus: 2,
      memoryMib: 512,
      includes: [
        options.bpftool ?? "/usr/sbin/bpftool",
        ...objects,
        yield* compileKindsFill(directory, options.arch),
        `${sources}fill.sh`,
        `${sources}capture.sh`
      ],
      script: `${SAY_BOOTED} && sh /include-files/fill.sh && sh /include-files/capture.sh`,
      consoleFile,
      timeout: "4 minutes"
    })
    const printed = parseCapture(yield* files.readFileString(consoleFile))
    const filled: Filled & Readonly<Record<string, unknown>> = JSON.parse(printed.get("filled.json")!)
    const theirs = parseMaps(printed.get("maps.json")!)
    const { items, problems } = yield* snapshot.maps.list
    assert.deepStrictEqual(problems, [])
    assert.deepStrictEqual(items.map(listed), withoutLeftovers(theirs, items, snapshot.header.kernel.release))
    const ours = new Map<string, ReadonlyArray<Entry>>()
    for (const info of items) {
      ours.set(info.name, Array.from(yield* Stream.runCollect(snapshot.maps.entries(info)), comparable))
    }
    const ofName = (name: string): ReadonlyArray<Entry> => ours.get(name)!
    const printedEntries = (info: MapInfo): ReadonlyArray<PrintedEntry> => {
      const types = info.btfId === null ? undefined : new PrintedTypes(printed.get(`btf-${info.btfId}.json`)!)
      return byKey(parseEntries(printed.get(`map-${info.id}.json`)!, listed(info), types))
    }
    const compared = new Set<string>()
    for (const info of items) {
      if (KEYED.has(info.type) && info.name !== "plain_hash") { // two have that name
        compareEntries(info, byKey(ofName(info.name)), printedEntries(info))
        compared.add(info.type)
      } else if (BY_BYTES.has(info.type) || (info.type === "sockmap" && info.valueSize === 8)) {
        const bytes = ({ keyHex, valuesHex }: Entry | PrintedEntry) => ({ keyHex, valuesHex: [...valuesHex] })
        assert.deepStrictEqual(byKey(ofName(info.name)).map(bytes), printedEntries(info).map(bytes), info.name)
        assert.isNotEmpty(ofName(info.name), info.name)
        compared.add(info.type)
      }
    }
    assert.strictEqual(compared.size, KEYED.size + BY_BYTES.size + 1)
    assert.isAbove(ofName("lpm_many").length, 1000)

    const details = (name: string) =>
      Effect.map(snapshot.maps.reader(items.find((info) => info.name === name)!), (reader) => reader.details)
    for (const name of ["queue_wrapped", "stack_popped", "queue_empty"] as const) {
      const expected = filled[name]
      assert.deepStrictEqual(ofName(name).map(({ plain }) => plain.key), expected.map((_, index) => index))
      const first = ofName(name).map(({ valuesHex: [hex] }) => Buffer.from(hex, "hex").readUInt32LE(0))
      assert.deepStrictEqual(first, [...expected], name)
      assert.strictEqual((yield* details(name))?.["elements"], expected.length)
    }

    for (const name of ["ring_wrapped", "user_ringbuf"] as const) {
      const { consumer, producer, records } = filled[name]
      const expected = records.map(([position, state, length, byte]) => ({
        key: position,
        value: { state, length, data: byte.toString(16).padStart(2, "0").repeat(length) }
      }))
      assert.deepStrictEqual<unknown>(ofName(name).map(({ plain }) => plain), expected)
      const shown = yield* details(name)
      assert.deepStrictEqual([shown?.["size"], shown?.["consumer"], shown?.["producer"]], [4096, consumer, producer])
    }
    const wrapped = filled.ring_wrapped.records.filter(([position, , length]) => position % 4096 + 8 + length > 4096)
    assert.strictEqual(wrapped.length, 1, "a record that goes over the ring's end")

    const bloom = yield* details("bloom_known")
    const bits = Number(bloom?.["bits"])
    const set = new Set<number>()
    for (let value = filled.bloom_known.from; value < filled.bloom_known.to; value++) {
      for (let i = 0; i < filled.bloom_known.hashFunctions; i++) set.add(jhashOfWord(value, i) % bits)
    }
    const words = ofName("bloom_known").flatMap(({ keyHex, valuesHex: [hex] }) => {
      const word = Buffer.from(hex, "hex").readBigUInt64LE(0)
      const first = Buffer.from(keyHex, "hex").readUInt32LE(0) * 64
      return Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => (word >> BigInt(bit) & 1n) === 1n)
        .map((bit) => first + bit)
    })
    assert.deepStrictEqual(words, [...set].sort((a, b) => a - b))
    assert.strictEqual(bloom?.["bitsSet"], set.size)

    for (const name of ["stack_traces", "stack_build_ids"] as const) {
      const info = items.find((info) => info.name === name)!
      const expected = printedEntries(info)
      assert.deepStrictEqual(ofName(name).map(({ plain }) => plain.key), [filled[name].id])
      assert.strictEqual(ofName(name)[0].valuesHex[0].padEnd(info.valueSize * 2, "0"), expected[0].valuesHex[0], name)
    }
    const [trace] = ofName("stack_traces")
    assert.deepStrictEqual<unknown>(trace.plain, { key: filled.stack_traces.id, value: filled.stack_traces.frames })

    const { arena } = filled
    assert.deepStrictEqual(
      items.filter(({ type }) => type === "arena").length,
      arena === undefined ? 0 : 1,
      "a kernel that has arenas has one"
    )
    if (arena !== undefined) {
      const expected = arena.pages.map((page, index) => ({
        key: `0x${(BigInt(arena.at) + BigInt(page * 4096)).toString(16)}`,
        value: (0x31 + index).toString(16).repeat(4096 - index) + "00".repeat(index)
      }))
      assert.deepStrictEqual<unknown>(ofName("arena").map(({ plain }) => plain), expected)
      const shown = yield* details("arena")
      assert.deepStrictEqual([shown?.["userAddress"], shown?.["pages"]], [arena.at, 2000])
    }

    for (const name of OBJECTS) {
      const entries = ofName(name).map(({ plain }) => [plain.key, "value" in plain ? plain.value : undefined])
      assert.deepStrictEqual<unknown>(Object.fromEntries(entries), filled[name], name)
    }
    for (const name of STORAGES.filter((name) => ours.has(name))) {
      const entries = ofName(name).map(({ plain }) => [plain.key, "value" in plain ? plain.value : undefined])
      assert.deepStrictEqual<unknown>(entries, filled[name], name)
    }
    assert.strictEqual(ours.has("cgrp_storage"), filled.cgrp_storage !== undefined)
    for (const name of ["cgroup_storage", "percpu_storage"] as const) {
      const [{ plain }] = ofName(name)
      const { cgroup, path } = filled.cgroup_storage
      assert.deepStrictEqual<unknown>(plain.key, { cgroup_inode_id: cgroup, attach_type: 1, path }, name)
      const owned = (number: number, text: string) => ({ number, text })
      const value = "cpus" in plain ? plain.cpus : plain.value
      assert.deepStrictEqual<unknown>(
        value,
        name === "cgroup_storage" ? owned(14, "kept") : [owned(100, "percpu"), owned(101, "percpu")],
        name
      )
    }

    const programs = new Map((yield* snapshot.maps.programs).items.map((program) => [program.id, program]))
    for (const [slot, id] of Object.entries(filled.prog_array)) {
      const found = ofName("prog_array").find(({ plain }) => String(plain.key) === slot)!
      assert.deepStrictEqual<unknown>(found.plain, { key: Number(slot), value: { ...programs.get(id) } })
    }
    const inner = (name: string) => {
      const { id, type } = items.find((info) => info.name === name)!
      return { id, name, type }
    }
    assert.deepStrictEqual<unknown>(ofName("array_of_maps").map(({ plain }) => plain), [
      { key: 0, value: inner("inner_first") },
      { key: 2, value: inner("inner_second") }
    ])
    compareStructOps(items, ours, printed, options.ops)
    yield* checkRecords(snapshot)
    return {
      bootSeconds: bootSeconds(printed),
      maps: items.length,
      entries: Array.from(ours.values()).reduce((sum, { length }) => sum + length, 0)
    }
  }).pipe(Effect.scoped, Effect.provide(HostLive))

/** The functions that programs implement, by member. */
const FUNCTIONS = {
  congestion: { ssthresh: "still_ssthresh", cong_avoid: "still_avoid", undo_cwnd: "still_undo" },
  scheduler: { enable: "plain_enable" }
}

/** bpftool prints the copy of user space, in which functions are program ids. */
const compareStructOps = (
  items: ReadonlyArray<MapInfo>,
  ours: ReadonlyMap<string, ReadonlyArray<Entry>>,
  printed: ReadonlyMap<string, string>,
  ops: keyof typeof FUNCTIONS
): void => {
  const info = items.find(({ type }) => type === "struct_ops")!
  const [entry] = ours.get(info.name)!
  const value: Record<string, unknown> = "value" in entry.plain ? Object(entry.plain.value) : {}
  const members = (from: unknown, name: string): unknown => from instanceof Members ? from.get(name) : undefined
  const dump = parsePrinted(printed.get(`map-${info.id}.json`)!)
  const [map] = Array.isArray(dump) ? dump : []
  const formatted = members(map, "formatted")
  const data = members(members(formatted, "value"), "data")
  for (const [member, name] of Object.entries(FUNCTIONS[ops])) {
    const id = Number(JSON.parse(JSON.stringify(members(data, member))).text)
    assert.isAbove(id, 0, member)
    assert.deepStrictEqual(value[member], { id, name, type: "struct_ops" }, member)
  }
  assert.strictEqual(value["name"], ops === "congestion" ? "ktstr_still" : "ktstr_plain")
  assert.strictEqual(members(data, "name"), value["name"])
}

/** What a dump prints of these maps is what its schema says. */
const checkRecords = ({ header, maps }: Snapshot) =>
  Effect.gen(function*() {
    const readers = yield* Effect.forEach((yield* maps.list).items, maps.reader)
    const dump = { header, readers, programs: [], problems: [], limit: 10 }
    const text = (pieces: Iterable<Uint8Array>) =>
      Buffer.concat(Array.from(pieces, (piece) => piece.slice())).toString()
    const document = yield* Schema.decodeUnknown(DumpDocument)(JSON.parse(text(jsonDocument(dump))))
    assert.deepStrictEqual(document.maps.map(({ problem }) => problem).filter((problem) => problem !== null), [])
    assert.isTrue(document.maps.every(({ consistency }) => consistency === "frozen"))
    for (const line of text(ndjsonRecords(dump)).trimEnd().split("\n")) {
      yield* Schema.decodeUnknown(DumpRecord)(JSON.parse(line))
    }
  })
