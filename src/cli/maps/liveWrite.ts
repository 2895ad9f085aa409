import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { UpdateMode } from "../../bpf/live/calls/BpfCalls.ts"
import { openLive } from "../../bpf/live/OpenLive.ts"
import type { Json } from "../../btf/render/RenderedValue.ts"
import * as NativeKoffi from "../../core/NativeKoffi.ts"
import { LiveHost } from "../../host/LiveHost.ts"
import { UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import type { WriteConfig } from "./writeOptions.ts"

/** Update or delete one entry of a map of this host. */
export const liveWrite = (config: WriteConfig) =>
  Effect.gen(function*() {
    const { key, map, mode, value } = yield* asked(config)
    const { live, maps } = yield* openLive()
    const [info, ...others] = yield* maps.find(map)
    if (others.length > 0) {
      const ids = [info, ...others].map(({ id }) => id).join(", ")
      return yield* new UsageError({
        problem: `${others.length + 1} maps are called ${map}: give an id, one of ${ids}`
      })
    }
    yield* live.write(
      info,
      value === undefined
        ? { kind: "delete", key: parse(key) }
        : { kind: "update", key: parse(key), value: parse(value), mode }
    )
    yield* writeText(`map ${info.id} (${info.name}): ${value === undefined ? "deleted" : "written"}\n`)
  }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(LiveHost.layer, NativeKoffi.layer)))

/** The write that the command line asks for; an undefined value: delete the entry. */
const asked = (
  config: WriteConfig
): Effect.Effect<
  { readonly map: string; readonly key: string; readonly value: string | undefined; readonly mode: UpdateMode },
  UsageError
> =>
  Effect.gen(function*() {
    const { assignments, key, map } = config
    if (config.racy) {
      return yield* new UsageError({ problem: "--racy goes with --kernel; the running kernel writes by itself" })
    }
    const modes = (["any", "create", "existing"] as const).filter((mode) => config[mode])
    if (modes.length > 1) return yield* new UsageError({ problem: `give one of --${modes.join(" and --")}` })
    if (Option.isNone(map) || Option.isNone(key)) {
      return yield* new UsageError({ problem: "--live writes one entry: give --map and --key" })
    }
    if (config.delete ? assignments.length > 0 || modes.length > 0 : assignments.length !== 1) {
      return yield* new UsageError({ problem: "--live writes one entry: give =VALUE, or --delete" })
    }
    const [assignment] = assignments
    if (assignment !== undefined && !assignment.startsWith("=")) {
      return yield* new UsageError({ problem: "--live takes =VALUE, whose absent members stay as they are" })
    }
    return { map: map.value, key: key.value, value: assignment?.slice(1), mode: modes[0] ?? "any" }
  })

/** Digits stay text: they may be an integer, which is taken from text too, or bytes in hex. */
const parse = (text: string): Json => {
  if (/^-?\d+$/.test(text)) return text
  try {
    return JSON.parse(text)
  } catch {
    return text // an enum's name, hex digits
  }
}
