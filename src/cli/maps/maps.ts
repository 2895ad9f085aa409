import * as Effect from "effect/Effect"
import type { Filter, Output, Target } from "../source/options.ts"
import { format, Live, openMaps } from "../source/snapshot.ts"
import { writeText } from "../terminal/Output.ts"
import * as Stages from "../terminal/Stages.ts"
import { printDump, select } from "./dump.ts"
import { headerText, mapTable, problemLines } from "./present.ts"

export const list = (config: Target & Output & Pick<Filter, "map" | "type">) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    const snapshot = yield* openMaps(config)
    const { items, problems } = yield* snapshot.maps.maps
    const maps = yield* select(snapshot, items, config)
    switch (as) {
      case "json":
        return yield* writeText(`${JSON.stringify({ ...snapshot.header, maps, problems })}\n`)
      case "ndjson":
        return yield* writeText(
          [
            ...maps.map((info) => ({ record: "map", ...info })),
            ...problems.map((problem) => ({ record: "problem", problem }))
          ].map((record) => `${JSON.stringify(record)}\n`).join("")
        )
      case "text":
        return yield* writeText(headerText(snapshot.header) + mapTable(maps) + problemLines(problems))
    }
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

export const show = (config: Target & Output & Pick<Filter, "limit" | "inner"> & { readonly name: string }) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    const snapshot = yield* openMaps(config)
    yield* printDump(snapshot, as, { map: [config.name], type: [], limit: config.limit, inner: config.inner })
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))
