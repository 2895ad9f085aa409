import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as JSONSchema from "effect/JSONSchema"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { DUMP_VERSION, Header } from "../../bpf/Report.ts"
import { isSameBoot } from "../../bpf/report/SnapshotDiff.ts"
import { parseForeignJson } from "../../core/process/ForeignJson.ts"
import { readForeignText, startsAsJson } from "../../core/process/ForeignText.ts"
import type { Reason } from "../../core/Reason.ts"
import { openImage } from "../../Ktstr.ts"
import {
  diffSched,
  guestSeconds,
  readSched,
  SchedChange,
  SchedDocument,
  type SchedFieldChange,
  type SchedSnapshot
} from "../../sched/index.ts"
import { problemLines, writeAnswer } from "../source/answer.ts"
import type { Loss, Output } from "../source/options.ts"
import { format, Live } from "../source/snapshot.ts"
import { bold, dim, green, red } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { FileUnreadable, UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import { duration } from "../terminal/Stages.ts"
import * as Stages from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"
import { checkStandsStill } from "./sched.ts"
import { documentOfRecords } from "./schedRecords.ts"

/** The file is neither a memory image nor what `sched show --json` or `--ndjson` wrote. */
export class NotASched extends Schema.TaggedError<NotASched>("ktstr/NotASched")("NotASched", {
  subject: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `${this.subject} is not a scheduler's state: ${this.why}; make one with ktstr sched show --json`
  }
}

/** The two sides have nothing in common. */
class OtherBoot extends Schema.TaggedError<OtherBoot>("ktstr/OtherBoot")("OtherBoot", {
  first: Schema.String,
  second: Schema.String
}) {
  override get message() {
    return `${this.first} and ${this.second} come from different boots, whose tasks and counters have nothing in common; `
      + "give two readings of one boot"
  }
}

interface Side {
  readonly header: Header
  readonly sched: SchedSnapshot
}

const decodeSide = Schema.decodeUnknownEither(
  Schema.Struct({ ...Header.fields, sched: SchedDocument }),
  { onExcessProperty: "ignore" }
)

/**
 * The document of `sched show --json`, or what its records of `--ndjson` were made of, in a file's text; fields that only a
 * newer one has are passed over.
 */
export const parseSide = (text: string, subject: string): Either.Either<Side, NotASched> => {
  const notASched = (why: string) => new NotASched({ subject, why: why.split("\n", 1)[0].slice(0, 200) })
  const document = /^\s*\{"record"/.test(text) ? documentOfRecords(text) : parseForeignJson(text)
  return Either.mapLeft(document, notASched).pipe(
    Either.flatMap((document) =>
      Either.mapLeft(decodeSide(document), (error) => {
        const [{ message, path }] = ParseResult.ArrayFormatter.formatErrorSync(error)
        return notASched([...path, message].join(": "))
      })
    ),
    Either.map(({ sched, ...header }) => ({ header, sched }))
  )
}

const Identity = Header.pick("source", "kernel", "freeze")

/** The document of `ktstr sched diff --json`. */
const DiffDocument = Schema.Struct({
  schema: Schema.Literal("sched-diff"),
  version: Schema.Literal(DUMP_VERSION),
  from: Identity,
  to: Identity,
  seconds: Schema.NullOr(Schema.Number).annotations({ description: "of the guest's time; null: not known" }),
  changes: Schema.Array(SchedChange),
  losses: Schema.Int.annotations({ description: "how many parts could not be compared (exit code 1)" })
}).annotations({ identifier: "SchedDiff" })

interface Sides {
  readonly from: Option.Option<string>
  readonly to: Option.Option<string>
}

export const diff = (config: Output & Loss & Sides & { readonly schema: boolean }) =>
  config.schema ? writeText(`${JSON.stringify(JSONSchema.make(DiffDocument), null, 2)}\n`) : compare(config)

const compare = (config: Output & Loss & Sides) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    if (Option.isNone(config.from) || Option.isNone(config.to)) {
      return yield* new UsageError({ problem: "give the two readings to compare, the earlier one first" })
    }
    const from = yield* openSide(config.from.value)
    const to = yield* openSide(config.to.value)
    if (!isSameBoot(from, to)) return yield* new OtherBoot({ first: config.from.value, second: config.to.value })
    const seconds = guestSeconds(from.sched.time, to.sched.time)
    const changes = [...diffSched(from.sched, to.sched)]
    const head = { from: identity(from), to: identity(to), seconds }
    yield* writeAnswer(as, config, {
      document: () => ({ schema: "sched-diff", version: DUMP_VERSION, ...head, changes }),
      records: () => [{ record: "diff", ...head }, ...changes.map((change) => ({ record: "change", ...change }))],
      text: () => diffText(changes, seconds)
    })
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

/** A document if the file starts as JSON does, else an image of memory. */
const openSide = (path: string) =>
  Effect.gen(function*() {
    const unreadable = (why: string) =>
      new FileUnreadable({ what: path, why, hint: "give a file of sched show --json or a memory image" })
    if (yield* Effect.mapError(startsAsJson(path), unreadable)) {
      const text = yield* Effect.mapError(readForeignText(path), unreadable)
      return yield* parseSide(text, path)
    }
    const { header, kernel } = yield* openImage(path)
    yield* checkStandsStill(kernel)
    return { header, sched: readSched(kernel) }
  })

const identity = ({ header: { freeze, kernel, source } }: Side) => ({ source, kernel, freeze })

/** The changes for people. */
export const diffText = (changes: ReadonlyArray<SchedChange>, seconds: number | null): string => {
  const of = <K extends SchedChange["change"]>(...kinds: ReadonlyArray<K>) =>
    changes.filter((each): each is Extract<SchedChange, { readonly change: K }> =>
      kinds.some((kind) => kind === each.change)
    )
  const parts = [
    ...of("scxChanged").map(({ fields }) => `sched_ext\n${fieldLines(fields)}`),
    ...of("schedulerLoaded").map(({ name }) => green(`+ scheduler ${escapeLine(name)}\n`)),
    ...of("schedulerGone").map(({ name }) => red(`- scheduler ${escapeLine(name)}\n`)),
    ...of("schedulerChanged").map(({ fields, name }) => `scheduler ${escapeLine(name)}\n${fieldLines(fields)}`),
    ...of("cpuChanged").map(({ cpu, fields }) => `CPU ${cpu}\n${fieldLines(fields)}`),
    ...of("queueAdded").map(({ queue, tasks }) => green(`+ ${escapeLine(queue)} (${tasks})\n`)),
    ...of("queueRemoved").map(({ queue, tasks }) => red(`- ${escapeLine(queue)} (${tasks})\n`)),
    section(
      "queues",
      ["QUEUE", "TASKS", "ENTERED", "LEFT"],
      of("queueChanged").map(({ after, before, entered, left, queue }) => [
        escapeLine(queue.replace(/^the /, "")),
        `${before} → ${after}`,
        names(entered),
        names(left)
      ]),
      []
    ),
    ...of("taskAdded").map((task) => green(`+ ${named(task)}\n`)),
    ...of("taskEnded").map((task) => red(`- ${named(task)}\n`)),
    section("tasks", ["TASK", "RAN", "SHARE", "SWITCHES", "WAITED", "CHANGED"], of("taskChanged").map(taskRow), [
      1,
      2,
      3,
      4
    ]),
    ...of("findingAppeared").map(({ name, text }) => `${red(`+ ${escapeLine(name)}`)}  ${escapeLine(text)}\n`),
    ...of("findingGone").map(({ name, text }) => `${green(`- ${escapeLine(name)}`)}  ${escapeLine(text)}\n`),
    problemLines(of("problem").map(({ problem }): Reason => problem))
  ]
  const head = seconds === null ? "" : dim(`${seconds} s of the guest's time from the first to the second\n`)
  return head + (changes.length === 0 ? "no difference\n" : parts.join(""))
}

const section = (
  title: string,
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  right: ReadonlyArray<number>
): string => rows.length === 0 ? "" : `\n${bold(title)}\n${table(head, rows, right)}`

const named = ({ comm, pid }: { readonly comm: string; readonly pid: number }): string => `${escapeLine(comm)}[${pid}]`

/** Tasks of one queue that are named. */
const NAMED = 8

const names = (tasks: ReadonlyArray<{ readonly comm: string; readonly pid: number }>): string =>
  [...tasks.slice(0, NAMED).map(named), ...(tasks.length > NAMED ? [`${tasks.length - NAMED} more`] : [])].join(" ")

const taskRow = (task: Extract<SchedChange, { readonly change: "taskChanged" }>): ReadonlyArray<string> => {
  const field = (name: string) => task.fields.find((each) => each.field === name)
  const ran = field("sum_exec_runtime")
  const switches = (field("nvcsw")?.delta ?? 0) + (field("nivcsw")?.delta ?? 0)
  const waited = field("run_delay")?.delta ?? 0
  const states = task.fields.filter(({ delta }) => delta === null).map(changeText)
  return [
    named(task),
    ran?.delta === undefined || ran.delta === null ? "" : duration(ran.delta / 1e6),
    ran?.rate === undefined || ran.rate === null ? "" : `${(ran.rate / 1e7).toFixed(1)} %`,
    switches === 0 ? "" : String(switches),
    waited === 0 ? "" : duration(waited / 1e6),
    states.join(", ")
  ]
}

const changeText = ({ after, before, field }: SchedFieldChange): string =>
  `${escapeLine(field)} ${escapeLine(String(before ?? "none"))} → ${escapeLine(String(after ?? "none"))}`

const fieldLines = (fields: ReadonlyArray<SchedFieldChange>): string =>
  fields.map((each) => {
    const { delta, rate } = each
    const by = delta === null ? "" : ` (${delta < 0 ? "" : "+"}${delta}${rate === null ? "" : `, ${rateText(rate)}/s`})`
    return `  ${changeText(each)}${by}\n`
  }).join("")

const rateText = (rate: number): string => Math.abs(rate) >= 100 ? rate.toFixed(0) : rate.toPrecision(3)
