import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { decodeEntry } from "../../../src/bpf/MapReader.ts"
import { jsonDocument } from "../../../src/bpf/report/DumpWriter.ts"
import { toJson } from "../../../src/btf/render/RenderedValue.ts"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import { openImage } from "../../../src/Ktstr.ts"
import { guestImage } from "../../support/image.ts"

it.scopedLive("what a dump prints is what the entries decode to, in maps of every type", () =>
  Effect.gen(function*() {
    const { header, maps } = yield* openImage(yield* guestImage)
    const { items } = yield* maps.list
    const readers = yield* Effect.forEach(items, maps.reader)
    const dump = { header, readers, programs: [], problems: [], limit: Infinity }
    const text = Buffer.concat(Array.from(jsonDocument(dump), (piece) => piece.slice())).toString()
    const printed: ReadonlyArray<{ readonly entries: ReadonlyArray<Record<string, unknown>> }> = JSON.parse(text).maps
    const types = new Set<string>()
    for (const [index, reader] of readers.entries()) {
      const decoded: Array<unknown> = []
      const hex = (bytes: Uint8Array | undefined) => bytes === undefined ? null : Buffer.from(bytes).toString("hex")
      const entries = printed[index].entries.map(({ keyBytes, valueBytes, cpuBytes, ...typed }) => ({
        typed,
        bytes: { keyBytes, valueBytes, cpuBytes }
      }))
      for (const walk = reader.walk?.() ?? null; walk?.next() === true;) {
        const entry = decodeEntry(reader, walk)
        // Where the typed form hides bytes, these stand beside it.
        const { cpuBytes, keyBytes, valueBytes } = entries[decoded.length].bytes
        if (keyBytes !== undefined) assert.strictEqual(keyBytes, hex(entry.keyBytes))
        if (valueBytes !== undefined) {
          assert.strictEqual(valueBytes, "valueBytes" in entry ? hex(entry.valueBytes) : null)
        }
        if (cpuBytes !== undefined) {
          assert.deepStrictEqual(cpuBytes, "cpuBytes" in entry ? entry.cpuBytes.map(hex) : null)
        }
        decoded.push(
          "cpus" in entry
            ? { key: toJson(entry.key), cpus: entry.cpus.map((value) => value === undefined ? null : toJson(value)) }
            : { key: toJson(entry.key), value: toJson(entry.value) }
        )
        types.add(reader.info.type)
      }
      assert.deepStrictEqual(entries.map(({ typed }) => typed), decoded, reader.info.name)
    }
    for (const type of ["hash", "prog_array", "cgroup_array", "devmap", "sockmap", "xskmap", "struct_ops"]) {
      assert.include([...types], type)
    }
  }).pipe(Effect.provide(Layer.mergeAll(NativeKoffi.layer, NodeContext.layer))), 200_000)
