import * as FileSystem from "@effect/platform/FileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { join } from "node:path"
import { type Dump, ndjsonRecords } from "../../src/bpf/report/DumpWriter.ts"
import { bootAndFreeze, openImage, type Snapshot } from "../../src/Ktstr.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { saveImage } from "../../src/memory/SaveImage.ts"
import { parseCapture } from "../support/capture.ts"
import { compileBpf, HostLive, scratch } from "../support/guest.ts"
import { eagerThread } from "../support/secondThread.ts"
import { compareMaps } from "./compareMaps.ts"

const sources = new URL("../bpf-src/", import.meta.url).pathname

/** Where `_text` is without KASLR: __START_KERNEL_map and CONFIG_PHYSICAL_START, arch/x86/include/asm/page_types.h, v6.12. */
const LINKED_TEXT = 0xffffffff81000000n

/** Boot a guest, fill its maps, let bpftool print them inside, freeze it, and compare every map with what was printed. */
const compareGuest = (options: {
  readonly kernel: string
  readonly cpus: number
  readonly memoryMib: number
  readonly cpuModel: string
  readonly levels: 4 | 5
  readonly kaslr: boolean
  readonly alsoAsImage?: boolean
}) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const directory = yield* scratch
    const objects = yield* compileBpf(directory, "types", "kinds")
    const consoleFile = `${directory}/console`
    const snapshot = yield* bootAndFreeze({
      ...options,
      includes: ["/usr/sbin/bpftool", ...objects, `${sources}fill.sh`, `${sources}capture.sh`],
      script: "sh /include-files/fill.sh && sh /include-files/capture.sh",
      consoleFile,
      timeout: "4 minutes"
    })
    const printed = parseCapture(yield* files.readFileString(consoleFile))
    const { header, kernel } = snapshot
    assert.strictEqual(header.kernel.release, printed.get("release")?.trim())
    assert.strictEqual(header.kernel.possibleCpus, options.cpus)
    assert.strictEqual(header.kernel.pageTableLevels, options.levels)
    assert.strictEqual(/\bla57\b/.test(printed.get("cpuinfo")!), options.levels === 5)
    assert.notMatch(printed.get("cmdline")!, /\bnokaslr\b/)
    const text = BigInt(`0x${/^[0-9a-f]{16}/.exec(printed.get("text")!)?.[0]}`)
    assert.strictEqual(kernel.kaslrOffset, text - LINKED_TEXT) // of some 500 offsets one is 0
    assert.isAtLeast(kernel.memory.size, options.memoryMib * 2 ** 20 * 0.99)
    yield* compareMaps(snapshot, printed)
    yield* comparePrograms(snapshot, printed)
    yield* compareThreads(snapshot)
    if (options.alsoAsImage === true) yield* compareImage(snapshot, join(directory, "guest.mem"))
  }).pipe(Effect.scoped, Effect.provide(HostLive))

/** Of each type whose maps two threads can write, one with more than a few entries. */
const SHARED = ["hash_4096", "hash_struct", "hash_made_on_de", "lru", "percpu_hash", "lru_percpu"]
/** Of JSON: no entry of these maps has so many. */
const PART_BYTES = 4096

/** Two threads must print what one does. */
const compareThreads = (snapshot: Snapshot) =>
  Effect.gen(function*() {
    const readers = yield* Effect.forEach((yield* snapshot.maps.list).items, snapshot.maps.reader)
    const second = yield* eagerThread(readers, PART_BYTES)
    assert.strictEqual(yield* recordsOf(snapshot, second), yield* recordsOf(snapshot))
    assert.includeMembers(second.shared, SHARED)
  })

/** All bytes that a dump prints behind its header, which says where it was read. */
const recordsOf = ({ header, maps }: Snapshot, second?: Dump["second"]) =>
  Effect.gen(function*() {
    const readers = yield* Effect.forEach((yield* maps.list).items, maps.reader)
    const pieces = ndjsonRecords({ header, readers, programs: [], problems: [], limit: Infinity, second })
    const text = Buffer.concat(Array.from(pieces, (piece) => piece.slice())).toString()
    return text.slice(text.indexOf("\n"))
  })

/** The same memory as a raw file in QEMU's order, without the gap below 4 GiB: it must print the same. */
const compareImage = (snapshot: Snapshot, path: string) =>
  Effect.gen(function*() {
    let start = 0
    const packed = snapshot.kernel.memory.regions.map(({ bytes }) => ({
      bytes,
      start: (start += bytes.length) - bytes.length
    }))
    yield* saveImage(new GuestMemory(packed), path)
    const image = yield* openImage(path)
    assert.deepStrictEqual(image.header.kernel, snapshot.header.kernel)
    assert.strictEqual(yield* recordsOf(image), yield* recordsOf(snapshot))
    yield* compareThreads(image)
  })

const comparePrograms = ({ maps }: Snapshot, printed: ReadonlyMap<string, string>) =>
  Effect.gen(function*() {
    const { items, problems } = yield* maps.programs
    assert.deepStrictEqual(problems, [])
    const theirs: ReadonlyArray<Record<string, unknown>> = JSON.parse(printed.get("progs.json")!)
    assert.deepStrictEqual(
      items.map(({ id, name, type }) => ({ id, name, type })),
      theirs.map(({ id, name, type }) => ({
        id: Number(id),
        name: String(name ?? ""),
        type: String(type)
      }))
    )
  })

describe("every map of a frozen guest equals what bpftool printed inside it", () => {
  const kernel = "debian:6.12-cloud"
  for (const memoryMib of [512, 5120]) {
    for (const cpus of [1, 4]) {
      for (const levels of [5, 4] as const) {
        const kaslr = levels === 5 || cpus === 1
        const cpuModel = levels === 5 ? "max" : "max,-la57"
        it.effect(
          `${kernel}, ${memoryMib} MiB, ${cpus} CPUs, ${levels}-level paging`,
          () => compareGuest({ kernel, memoryMib, cpus, cpuModel, levels, kaslr, alsoAsImage: cpus === 4 }),
          300_000
        )
      }
    }
  }
  it.effect(
    "6.1-cloud, 512 MiB, 2 CPUs, 5-level paging",
    () =>
      compareGuest({ kernel: "debian:6.1-cloud", memoryMib: 512, cpus: 2, cpuModel: "max", levels: 5, kaslr: true }),
    300_000
  )
})
