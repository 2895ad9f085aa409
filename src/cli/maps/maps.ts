import * as Effect from "effect/Effect"
import { problemLines, problemRecords, writeAnswer } from "../source/answer.ts"
import type { Filter, Loss, Output, Target } from "../source/options.ts"
import { format, Live, openMaps } from "../source/snapshot.ts"
import * as Stages from "../terminal/Stages.ts"
import { printDump, select } from "./dump.ts"
import { headerText, mapTable } from "./present.ts"

export const list = (config: Target & Output & Loss & Pick<Filter, "map" | "type">) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    const snapshot = yield* openMaps(config)
    const { items, problems } = yield* snapshot.maps.list
    const maps = yield* select(snapshot, items, config)
    yield* writeAnswer(as, config, {
      document: () => ({ ...snapshot.header, maps, problems }),
      records: () => [...maps.map((info) => ({ record: "map", ...info })), ...problemRecords(problems)],
      text: () => headerText(snapshot.header) + mapTable(maps) + problemLines(problems)
    })
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

export const show = (config: Target & Output & Loss & Pick<Filter, "limit" | "inner"> & { readonly name: string }) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    const snapshot = yield* openMaps(config)
    yield* printDump(snapshot, as, { ...config, map: [config.name], type: [] })
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))
