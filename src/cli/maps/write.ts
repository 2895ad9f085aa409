import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type MapAssignment, type MapWritten, writeMaps } from "../../bpf/guest/write/MapWrite.ts"
import type { Json } from "../../btf/render/RenderedValue.ts"
import { stage } from "../../core/Progress.ts"
import { freezeAndAttach } from "../../Ktstr.ts"
import { GuestKernel } from "../../memory/GuestKernel.ts"
import { bootTarget, format, Live } from "../source/snapshot.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import * as Stages from "../terminal/Stages.ts"
import type { WriteConfig } from "./writeOptions.ts"

/** The guest's console did not print what was waited for, in time or before the guest's end. */
export class LineNotSeen extends Schema.TaggedError<LineNotSeen>("ktstr/LineNotSeen")("LineNotSeen", {
  pattern: Schema.String,
  seconds: Schema.Number
}) {
  override get message() {
    return `the values were written, but no line of the console matched ${this.pattern} within ${this.seconds} s; `
      + "keep the console with --console FILE to see what it printed"
  }
}

const DEFAULT_SECONDS = 60

/** Boot, run the script, freeze (or not, `--racy`), set the values, and let the guest go on until its console says `until`. */
export const write = (config: WriteConfig) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    if (config.any || config.create || config.existing || config.delete) {
      return yield* new UsageError({ problem: "--any, --create, --existing and --delete go with --live" })
    }
    const consistency = config.racy ? "racing" : "frozen"
    if (config.assignments.length === 0) {
      return yield* new UsageError({ problem: "say what to set: VARIABLE.PATH=VALUE" })
    }
    const wanted = yield* Effect.forEach(config.assignments, (text) => assignmentOf(text, config))
    const until = yield* Option.match(config.until, {
      onNone: () => Effect.succeed(undefined),
      onSome: (pattern) =>
        Effect.try({
          try: () => new RegExp(pattern),
          catch: () => new UsageError({ problem: `--until "${pattern}" is not a regular expression` })
        })
    })
    const { name, vm } = yield* bootTarget(config)
    const { earlier, written } = yield* Effect.scoped(Effect.gen(function*() {
      const kernel = config.racy
        ? yield* stage("attach", "cli.attach")(
          Effect.flatMap(vm.memory, (memory) => GuestKernel.fromMemory(memory, `memory of ${name}`))
        )
        : (yield* freezeAndAttach(vm, name)).kernel
      const earlier = (yield* vm.consoleTail).length
      const written = yield* Effect.provideService(writeMaps(wanted, consistency), GuestKernel, kernel)
      return { written, earlier }
    }))
    const seconds = Option.getOrElse(config.timeout, () => DEFAULT_SECONDS)
    const line = until === undefined ? null : yield* stage("go on", "cli.goOn")(
      Stream.runHead(Stream.filter(Stream.drop(vm.console, earlier), (text) => until.test(text))).pipe(
        Effect.flatten,
        Effect.timeout(Duration.seconds(seconds)),
        Effect.mapError(() => new LineNotSeen({ pattern: String(until), seconds }))
      )
    )
    yield* writeText(
      as === "text"
        ? written.map((each) => writtenText(each, config.racy)).join("") +
          (line === null ? "" : `${escapeLine(line)}\n`)
        : as === "json"
        ? `${JSON.stringify({ consistency, written, line })}\n`
        : [
          ...written.map((each) => ({ record: "written", consistency, ...each })),
          ...(line === null ? [] : [{ record: "line", line }])
        ].map((record) => `${JSON.stringify(record)}\n`).join("")
    )
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

const writtenText = ({ after, before, cpu, mapId, mapName, path }: MapWritten, racy: boolean): string => {
  const who = cpu === null ? "" : ` CPU ${cpu}`
  const where = path === "" ? "" : ` ${escapeLine(path)}`
  const how = racy ? " (while the guest ran)" : ""
  return `map ${mapId} ${escapeLine(mapName)}${who}${where}: ${JSON.stringify(before)} → ${
    JSON.stringify(after)
  }${how}\n`
}

/** `PATH=VALUE`; a word that is not JSON is text: an enum's name, a string, an address. */
const assignmentOf = (text: string, { cpu, key, map }: WriteConfig): Effect.Effect<MapAssignment, UsageError> =>
  Effect.gen(function*() {
    const sign = text.indexOf("=")
    if (sign < 0) return yield* new UsageError({ problem: `"${text}" sets nothing: write VARIABLE.PATH=VALUE` })
    const path = text.slice(0, sign).trim()
    const name = Option.getOrUndefined(map)
    if (name === undefined && path === "") {
      return yield* new UsageError({ problem: `"${text}" names no variable; to set a map's whole value give --map` })
    }
    if (name === undefined && Option.isSome(key)) return yield* new UsageError({ problem: "--key goes with --map" })
    const who = yield* Option.match(cpu, {
      onNone: () => Effect.succeed(undefined),
      onSome: (word) =>
        word === "all" || /^\d+$/.test(word)
          ? Effect.succeed(word === "all" ? "all" as const : Number(word))
          : new UsageError({ problem: `--cpu needs a CPU number or all, not "${word}"` })
    })
    return {
      map: name,
      key: Option.getOrUndefined(Option.map(key, jsonOf)),
      path,
      value: jsonOf(text.slice(sign + 1)),
      cpu: who
    }
  })

const jsonOf = (text: string): Json => {
  // JSON.parse would round an integer that JSON numbers cannot hold
  if (/^\s*-?\d{16,}\s*$/.test(text)) return text.trim()
  return Either.getOrElse(Either.try((): Json => JSON.parse(text)), () => text.trim())
}
