import { assert, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import * as GuestMapAccessor from "../../src/bpf/guest/GuestMapAccessor.ts"
import { GuestMaps } from "../../src/bpf/guest/GuestMaps.ts"
import { openInnerMaps } from "../../src/bpf/InnerMaps.ts"
import { DUMP_VERSION, DumpDocument, DumpRecord, type Header } from "../../src/bpf/Report.ts"
import { jsonDocument, ndjsonRecords } from "../../src/bpf/report/DumpWriter.ts"
import { layout } from "../../src/btf/Layout.ts"
import { kvaFrom } from "../../src/core/Address.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { guestImage } from "../support/image.ts"

/** A kernel in memory that a test may damage. */
class Guest extends Context.Tag("test/Guest")<Guest, {
  readonly kernel: typeof GuestKernel.Service
  readonly view: DataView
}>() {
  static readonly layer = Layer.effect(
    Guest,
    Effect.gen(function*() {
      const bytes = new Uint8Array(readFileSync(yield* guestImage))
      const kernel = yield* GuestKernel.fromMemory(new GuestMemory([{ start: 0, bytes }]))
      return { kernel, view: new DataView(bytes.buffer) }
    })
  )
}

const header: Header = {
  schema: "single",
  version: DUMP_VERSION,
  source: { kind: "image", path: "guest.mem" },
  kernel: { release: "6.12", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 2 },
  freeze: null
}
const OUTER = ["array_of_maps", "hash_of_maps"]

/** The maps of these names as a document and as records, with inner maps or without. */
const dumped = (kernel: typeof GuestKernel.Service, names: ReadonlyArray<string>, isInner: boolean, limit = Infinity) =>
  Effect.gen(function*() {
    const maps = yield* Effect.provideService(GuestMapAccessor.make, GuestKernel, kernel)
    const { items } = yield* maps.list
    const readers = yield* Effect.forEach(items.filter(({ name }) => names.includes(name)), maps.reader)
    const inner = isInner ? yield* openInnerMaps(maps, readers) : undefined
    const dump = { header, readers, programs: [], problems: [], limit, inner }
    const text = (pieces: Iterable<Uint8Array>) =>
      Buffer.concat(Array.from(pieces, (piece) => piece.slice())).toString()
    const document: DumpDocument = yield* Schema.decodeUnknown(Schema.parseJson(DumpDocument))(text(jsonDocument(dump)))
    const records = text(ndjsonRecords(dump)).trimEnd().split("\n").map((line) =>
      Schema.decodeUnknownSync(Schema.parseJson(DumpRecord))(line)
    )
    return { maps: new Map(document.maps.map((map) => [map.name, map])), records }
  })

const entriesOf = (map: DumpDocument["maps"][number] | undefined) =>
  (map?.entries ?? []).map((entry) => [entry.key, "value" in entry ? entry.value : entry.cpus] as const)

layer(Guest.layer, { excludeTestServices: true, timeout: "3 minutes" })("the maps inside maps of maps", (it) => {
  it.effect("are their ids, or with them the entries that the maps have by themselves", () =>
    Effect.gen(function*() {
      const { kernel } = yield* Guest
      const plain = (yield* dumped(kernel, [...OUTER, "inner_first", "inner_second"], false)).maps
      const { maps, records } = yield* dumped(kernel, OUTER, true)
      let filled = 0
      for (const name of OUTER) {
        const shown = entriesOf(maps.get(name))
        const ids = entriesOf(plain.get(name))
        assert.isAbove(ids.length, 0, name)
        assert.deepStrictEqual(
          shown,
          ids.map(([key, inner]) => {
            const { id, name, type }: Record<string, unknown> = Object(inner)
            const { entries, truncated } = plain.get(String(name))!
            filled += entries.length
            return [key, { id, name, type, entries, truncated, problem: null }] as const
          }),
          name
        )
        assert.isNull(maps.get(name)?.problem)
        const recorded = records.flatMap((each) => each.record === "entry" && each.name === name ? [each] : [])
        assert.deepStrictEqual(
          recorded.map((each) => [each.key, "value" in each ? each.value : null] as const),
          shown
        )
      }
      assert.isAbove(filled, 0)
    }))

  it.effect("are as long as the limit of each map", () =>
    Effect.gen(function*() {
      const { kernel } = yield* Guest
      const { maps } = yield* dumped(kernel, OUTER, true, 1)
      const [[, first]] = entriesOf(maps.get("array_of_maps"))
      assert.deepInclude(Object(first), { truncated: true, problem: null })
      assert.lengthOf(Object(first).entries, 1)
    }))

  it.effect("say what is wrong with a slot: a map that is gone, itself a map of maps, or not there", () =>
    Effect.gen(function*() {
      const { kernel, view } = yield* Guest
      const { items } = Either.getOrThrow(GuestMaps.make(kernel)).maps
      const addressOf = (name: string): bigint => {
        const { offset, page } = items.find(({ info }) => info.name === name)!
        return kvaFrom(page, offset)
      }
      const slot = kernel.space.translate(
        addressOf("array_of_maps") + BigInt(Either.getOrThrow(layout(kernel.btf, "bpf_array", ["value"])).at.value)
      )
      const before = view.getBigUint64(slot, true)
      const into = (pointer: bigint) =>
        Effect.gen(function*() {
          view.setBigUint64(slot, pointer, true)
          const map = (yield* dumped(kernel, OUTER, true)).maps.get("array_of_maps")
          return { value: entriesOf(map).find(([key]) => key === 0)?.[1], problem: map?.problem }
        }).pipe(Effect.ensuring(Effect.sync(() => view.setBigUint64(slot, before, true))))

      const [{ info }] = items.filter(({ info }) => info.name === "array_of_maps")
      for (const name of OUTER) {
        const { id } = items.find((map) => map.info.name === name)!.info
        const corrupted = { kind: "corrupted", text: "a map of maps inside a map of maps" }
        assert.deepStrictEqual(yield* into(addressOf(name)), {
          value: { id, entries: [], truncated: false, problem: corrupted },
          problem: null
        })
      }
      assert.isAbove(info.maxEntries, 0)

      const idAt = kernel.space.translate(
        addressOf("inner_first") + BigInt(Either.getOrThrow(layout(kernel.btf, "bpf_map", ["id"])).at.id)
      )
      const id = view.getUint32(idAt, true)
      view.setUint32(idAt, 0, true) // kernel/bpf/syscall.c `bpf_map_free_id`
      const gone = yield* into(before).pipe(Effect.ensuring(Effect.sync(() => view.setUint32(idAt, id, true))))
      assert.deepStrictEqual(gone.value, {
        id: 0,
        entries: [],
        truncated: false,
        problem: { kind: "absent", text: "no map in the list has this id: it is gone" }
      })

      const unmapped = yield* into(0xffff_8000_0000_0000n)
      assert.isUndefined(unmapped.value)
      assert.strictEqual(unmapped.problem?.kind, "unreadable")
      assert.match(unmapped.problem?.text ?? "", /^entry 0: 0xffff800000000000 is not mapped/)
    }))
})
