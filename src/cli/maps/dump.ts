import * as Effect from "effect/Effect"
import * as JSONSchema from "effect/JSONSchema"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { openInnerMaps } from "../../bpf/InnerMaps.ts"
import type { MapAccessorService } from "../../bpf/MapAccessor.ts"
import type { MapInfo } from "../../bpf/MapInfo.ts"
import { typeNames } from "../../bpf/MapType.ts"
import { DumpDocument, type Header } from "../../bpf/Report.ts"
import { type Dump, jsonDocument, ndjsonRecords } from "../../bpf/report/DumpWriter.ts"
import { secondThread } from "../../bpf/report/WalkThread.ts"
import type { Btf } from "../../btf/Btf.ts"
import { Losses } from "../../core/Losses.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { checkWhole } from "../source/answer.ts"
import { type Filter, type Loss, type Output, type Target, TEXT_LIMIT } from "../source/options.ts"
import { format, Live, openMaps } from "../source/snapshot.ts"
import { checkWritable, writeFile } from "../source/writeFile.ts"
import { UsageError } from "../terminal/exit.ts"
import { writePieces, writeText } from "../terminal/Output.ts"
import { dumpPieces } from "../terminal/Printable.ts"
import { duration, layer as stagesLayer } from "../terminal/Stages.ts"
import { writeMessage } from "../terminal/Streams.ts"
import { dumpText } from "./present.ts"

/** A kernel whose maps are printed, whatever it is read from. */
interface Snapshot {
  readonly header: Header
  readonly kernel: { readonly release: string; readonly btf: Btf } | GuestKernelService
  readonly maps: MapAccessorService
}

/** The JSON Schema of the document, with its scheduler's state described too. */
const documentSchema = Effect.map(
  Effect.promise(() => import("../../sched/SchedDocument.ts")), // 20 ms, that only this is worth
  ({ SchedDocument }) =>
    JSONSchema.make(
      Schema.Struct({ ...DumpDocument.fields, sched: Schema.optional(SchedDocument) }).annotations({
        identifier: "DumpDocument"
      })
    )
)

export const dump = (
  config: Target & Output & Loss & Filter & { readonly out: Option.Option<string>; readonly schema: boolean }
) =>
  config.schema ?
    Effect.flatMap(documentSchema, (schema) => writeText(`${JSON.stringify(schema, null, 2)}\n`)) :
    Effect.gen(function*() {
      const asked = yield* format(config)
      // a file is for `ktstr diff` and scripts
      const as = Option.isSome(config.out) && asked === "text" ? "json" : asked
      if (Option.isSome(config.out)) yield* checkWritable(config.out.value)
      const snapshot = yield* openMaps(config)
      yield* printDump(snapshot, as, config, Option.getOrUndefined(config.out))
    }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(stagesLayer))

/** Print a snapshot's maps, those that the filter keeps, on stdout or into a file. */
export const printDump = (snapshot: Snapshot, as: "text" | "json" | "ndjson", filter: Filter & Loss, out?: string) =>
  Effect.gen(function*() {
    const { header, kernel, maps } = snapshot
    const { items, problems } = yield* maps.list
    const programs = yield* maps.programs
    const kept = yield* select(snapshot, items, filter)
    const limit = Option.getOrElse(filter.limit, () => as === "text" ? TEXT_LIMIT : Infinity)
    const readers = yield* Effect.forEach(kept, maps.reader)
    const losses = new Losses()
    const second = as === "text" ? undefined : yield* secondThread(readers, limit) // it starts while the scheduler is read
    const dump: Dump = {
      header,
      readers,
      // who asked for some maps does not want to read of programs; a document is always whole
      programs: as === "text" && kept.length < items.length ? [] : programs.items,
      problems: [...problems, ...programs.problems],
      sched: as === "json" && isWhole(filter) && "space" in kernel && standsStill(header, kernel)
        ? yield* schedOf(kernel)
        : undefined,
      limit,
      inner: filter.inner ? yield* openInnerMaps(maps, readers) : undefined,
      second,
      losses
    }
    const start = performance.now()
    const pieces = as === "text"
      ? dumpText(dump)
      : dumpPieces(as === "json" ? jsonDocument(dump) : ndjsonRecords(dump))
    yield* out === undefined ? writePieces(pieces) : writeFile(out, pieces)
    // no stage: its spinner would run through the text on a terminal
    writeMessage(`  read and print: ${duration(performance.now() - start)}\n`)
    yield* checkWhole(losses, filter)
  })

/** Parts of a scheduler's state that are of different moments say nothing together. */
const standsStill = ({ freeze, source }: Header, { memory }: GuestKernelService): boolean =>
  freeze !== null || (source.kind === "image" && !memory.running)

/** The scheduler's state, whose readers are loaded for it alone. */
const schedOf = (kernel: GuestKernelService) =>
  Effect.map(Effect.promise(() => import("../../sched/SchedState.ts")), ({ readSched }) => readSched(kernel))

const isWhole = ({ map, type }: Filter): boolean => map.length === 0 && type.length === 0

/** The maps that the filter keeps; a name that no map has fails, and a type that this kernel does not know. */
export const select = (
  snapshot: Snapshot,
  items: ReadonlyArray<MapInfo>,
  { map, type }: Pick<Filter, "map" | "type">
) =>
  Effect.gen(function*() {
    const known = knownTypes(snapshot)
    const wrong = type.find((each) => !known.includes(each))
    if (wrong !== undefined) {
      return yield* new UsageError({
        problem: `--type "${wrong}": kernel ${snapshot.kernel.release} has no such map type`
          + `; its types are ${known.join(", ")}`
      })
    }
    const named = new Set((yield* Effect.forEach(map, snapshot.maps.find)).flat().map(({ id }) => id))
    return items.filter((info) =>
      (map.length === 0 || named.has(info.id)) && (type.length === 0 || type.includes(info.type))
    )
  })

/** More map types than any kernel has. */
const MOST_TYPES = 256

/** The map types that the kernel's own BTF names. */
const knownTypes = ({ kernel }: Snapshot): ReadonlyArray<string> => {
  const nameOf = typeNames(kernel.btf, "bpf_map_type")
  return Array.from({ length: MOST_TYPES }, (_, type) => nameOf(type)).filter((name) => !/^type \d+$/.test(name))
}
