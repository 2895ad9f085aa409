import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { join } from "node:path"
import { makeDirectories } from "../../core/CacheDir.ts"
import { whyOf } from "../../core/Errors.ts"
import { formatReason } from "../../core/Reason.ts"
import { upReport } from "../../kvm/guest/Init.ts"
import type { Vm } from "../../kvm/spec/VmEngine.ts"
import { onLine, onRule, onWrite, periodic } from "../../monitor/moments/Snapshots.ts"
import { momentPieces, type TakenMoment } from "../../monitor/moments/TakenMoment.ts"
import { parsePlace } from "../../monitor/moments/WatchedPlace.ts"
import { defaultRules, type Rule } from "../../monitor/Rules.ts"
import { periodMillis } from "../source/every.ts"
import { checkWritable, FileUnwritable, writeFile } from "../source/writeFile.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { UsageError } from "../terminal/exit.ts"
import { dumpPieces } from "../terminal/Printable.ts"
import { writeMessage } from "../terminal/Streams.ts"

/** A guest that has reported its end has ended by then, and with it the wait for moments that will not come. */
const GUEST_LEAVES = "3 seconds"

const RULE_NAMES = defaultRules.map(({ name }) => name).join(", ")

interface Config {
  readonly snapshot: ReadonlyArray<string>
  readonly snapshots: Option.Option<string>
}

/** When to take moments of a guest: at points of a run, when a line comes, a kernel variable changes, or a rule is broken. */
type When =
  | { readonly points: number; readonly millis: number }
  | { readonly pattern: RegExp; readonly name: string }
  | { readonly written: string; readonly name: string }
  | { readonly rule: Rule; readonly name: string }

/** The moments of a run that are wanted, and the directory for them. */
export interface Wanted {
  readonly whens: ReadonlyArray<When>
  readonly directory: string
}

const parseWhen = (text: string, place: number): Effect.Effect<When, UsageError> => {
  const [, how, value] = /^(periodic|line|write|rule)=(.+)$/s.exec(text) ?? []
  const [, points, time] = how === "periodic" ? /^([1-9]\d{0,8})\/(.+)$/.exec(value) ?? [] : []
  const millis = time === undefined ? undefined : periodMillis(time)
  if (millis !== undefined) return Effect.succeed({ points: Number(points), millis })
  const written = how === "write" ? parsePlace(value) : undefined
  if (written !== undefined) return Effect.succeed({ written: value, name: `${written.name}_000` })
  if (how === "rule") {
    const rule = defaultRules.find(({ name }) => name === value)
    return rule === undefined
      ? new UsageError({ problem: `--snapshot ${text}: no such rule; there are ${RULE_NAMES}` })
      : Effect.succeed({ rule, name: rule.name })
  }
  if (how !== "line") {
    return new UsageError({
      problem: `--snapshot ${text}: give periodic=8/60s, line=REGEX, write=SYMBOL, or rule=NAME`
    })
  }
  return Effect.try({
    try: () => ({ pattern: new RegExp(value), name: `line_${String(place).padStart(3, "0")}` }),
    catch: () => new UsageError({ problem: `--snapshot ${text}: not a regular expression` })
  })
}

/** The moments that the options ask for, checked before anything boots. */
export const wantedSnapshots = ({ snapshot, snapshots }: Config) =>
  Effect.gen(function*() {
    if (snapshot.length === 0 && Option.isNone(snapshots)) return undefined
    if (snapshot.length === 0 || Option.isNone(snapshots)) {
      return yield* new UsageError({ problem: "--snapshot says when, --snapshots DIR where to: give both" })
    }
    const whens = yield* Effect.forEach(snapshot, parseWhen)
    if (whens.filter((when) => "points" in when).length > 1) {
      return yield* new UsageError({ problem: "--snapshot periodic can be given once" })
    }
    const names = whens.flatMap((when) => "written" in when || "rule" in when ? [when.name] : [])
    if (new Set(names).size < names.length) {
      return yield* new UsageError({
        problem: "--snapshot write and rule can be given once for each variable and rule"
      })
    }
    const wanted: Wanted = { whens, directory: snapshots.value }
    yield* Effect.mapError(
      makeDirectories(wanted.directory),
      (error) => new FileUnwritable({ path: wanted.directory, why: whyOf(error) })
    )
    yield* checkWritable(fileOf(wanted.directory, "line_000"))
    return wanted
  })

const fileOf = (directory: string, name: string): string => join(directory, `${name}.json`)

const keep = (directory: string, moment: TakenMoment) =>
  Effect.gen(function*() {
    const file = fileOf(directory, moment.name)
    yield* writeFile(file, dumpPieces(momentPieces(moment)))
    writeMessage(
      "kind" in moment.reading
        ? `  ${file}: not taken: ${escapeLine(formatReason(moment.reading))}\n`
        : `  ${file}: written; the guest stood still for ${moment.pauseMillis} ms\n`
    )
  })

/** Take the moments of a guest that are wanted at one kind of time; one that did not come is said. */
const takeWhen = (vm: Vm, kernel: string, directory: string, when: When) => {
  if ("points" in when) {
    const moments = periodic(vm, { points: when.points, over: when.millis, kernel })
    return Stream.runForEach(moments, (moment) => keep(directory, moment))
  }
  let taken = 0
  const notTaken = (why: string) =>
    Effect.sync(() => {
      const file = fileOf(directory, when.name.replace(/000$/, String(taken).padStart(3, "0")))
      writeMessage(`  ${file}: not taken: ${escapeLine(why)}\n`)
    })
  if ("pattern" in when) {
    return onLine(vm, when.name, when.pattern, { kernel }).pipe(
      Effect.flatMap((moment) => keep(directory, moment)),
      Effect.catchTag("GuestExited", "GuestPanicked", "VmDied", () => notTaken(`no line matched ${when.pattern}`))
    )
  }
  if ("rule" in when) {
    return Effect.zipRight(vm.awaitReport(upReport), onRule(vm, [when.rule], { kernel })).pipe(
      Effect.flatMap((moment) => keep(directory, moment)),
      Effect.catchTag("GuestExited", "GuestPanicked", "VmDied", () => notTaken(`the rule ${when.name} was not broken`)),
      Effect.catchIf((error) => error._tag !== "FileUnwritable", (error) => notTaken(error.message))
    )
  }
  return Effect.gen(function*() {
    yield* vm.awaitReport(upReport)
    const moments = yield* onWrite(vm, when.written, { kernel })
    yield* Stream.runForEach(
      moments,
      (moment) => Effect.tap(keep(directory, moment), () => Effect.sync(() => taken++))
    )
    if (taken === 0) yield* notTaken(`the guest did not change ${when.written}`)
  }).pipe(
    Effect.scoped,
    Effect.catchIf(
      (error) => error._tag !== "FileUnwritable",
      (error) => notTaken(error.message)
    )
  )
}

/**
 * Begin to take the moments of a guest that are wanted. Gives what waits, when the guest's run is over, for those that are
 * being written.
 */
export const takeSnapshots = (vm: Vm, kernel: string, { directory, whens }: Wanted) =>
  Effect.gen(function*() {
    const taking = yield* Effect.forkScoped(Effect.forEach(
      whens,
      (when) => takeWhen(vm, kernel, directory, when),
      { concurrency: "unbounded", discard: true }
    ))
    const stays = Effect.sleep(GUEST_LEAVES).pipe(
      Effect.zipRight(Effect.timeoutOption(Effect.ignore(vm.ended), "10 millis")),
      Effect.flatMap((ended) => Option.isSome(ended) ? Effect.never : Effect.void)
    )
    return Effect.raceFirst(Fiber.join(taking), stays)
  })
