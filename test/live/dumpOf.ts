import * as Effect from "effect/Effect"
import type { MapAccessor } from "../../src/bpf/MapAccessor.ts"
import type { MapInfo } from "../../src/bpf/MapInfo.ts"
import { decodeEntry, problemOf } from "../../src/bpf/MapReader.ts"
import type { Details } from "../../src/bpf/Report.ts"
import { type Json, toJson } from "../../src/btf/render/RenderedValue.ts"
import type { Reason } from "../../src/core/Reason.ts"

/** A map as an accessor reads it. */
export interface Dumped {
  readonly info: MapInfo
  readonly details: Details | null
  readonly consistency: string
  readonly problem: Reason | null
  readonly entries: ReadonlyArray<{ readonly key: Json; readonly value: Json; readonly bytes: string }>
}

const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString("hex")

/** All maps of a source, the same of each. */
export const dumpOf = (accessor: typeof MapAccessor.Service) =>
  Effect.gen(function*() {
    const { items, problems } = yield* accessor.list
    const maps: Array<Dumped> = []
    for (const info of items) {
      const reader = yield* accessor.reader(info)
      const walk = reader.walk?.() ?? null
      const entries: Array<Dumped["entries"][number]> = []
      while (walk?.next() === true) {
        const entry = decodeEntry(reader, walk)
        entries.push({
          key: toJson(entry.key),
          value: "cpus" in entry
            ? entry.cpus.map((value) => value === undefined ? null : toJson(value))
            : toJson(entry.value),
          bytes: `${hex(entry.keyBytes)}: ${
            "cpus" in entry ? entry.cpuBytes.map(hex).join(" ") : hex(entry.valueBytes)
          }`
        })
      }
      const { consistency, details } = reader
      maps.push({ info, details, consistency, problem: problemOf(reader, walk), entries })
    }
    const { items: programs } = yield* accessor.programs
    return { maps, programs, problems }
  })
