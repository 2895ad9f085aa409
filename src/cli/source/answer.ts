import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type Losses, lossesIn } from "../../core/Losses.ts"
import { plural } from "../../core/Plural.ts"
import { formatReason, type Reason } from "../../core/Reason.ts"
import { yellow } from "../terminal/Color.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { writeText } from "../terminal/Output.ts"
import type { OutputError } from "../terminal/Streams.ts"
import type { Loss } from "./options.ts"

/** The answer is written, but parts of it are missing; exit code 1. */
export class Incomplete extends Schema.TaggedError<Incomplete>("ktstr/Incomplete")("Incomplete", {
  losses: Schema.Int,
  first: Schema.String
}) {
  override get message() {
    const which = this.losses === 1 ? "" : ", the first"
    return `${lostText(this.losses)}${which}: ${this.first.replaceAll(";", ",")}; `
      + "give --allow-partial to accept that"
  }
}

const lostText = (losses: number): string => `${plural(losses, "part")} could not be read whole`

/** The last line of an answer for people; empty where nothing is lost. */
export const lossesLine = ({ count }: Losses): string =>
  count === 0 ? "" : `${yellow(`incomplete: ${lostText(count)}`)}\n`

/** Problems for people, a line each. */
export const problemLines = (problems: ReadonlyArray<Reason>): string =>
  problems.map((problem) => `${yellow(`problem: ${escapeLine(formatReason(problem))}`)}\n`).join("")

/** Fails when something is lost, unless `--allow-partial` accepts that. */
export const checkWhole = ({ count, first }: Losses, { allowPartial }: Loss): Effect.Effect<void, Incomplete> =>
  count === 0 || allowPartial ? Effect.void : new Incomplete({ losses: count, first: first ?? "" })

/** The three forms of an answer. The number of `losses` is added to each at its end. */
export interface Answer {
  /** For `--json`. */
  readonly document: () => object
  /** For `--ndjson`, a record a line. */
  readonly records: () => Iterable<object>
  /** For people. */
  readonly text: () => string
  /** The parts that the forms are made of, with their `Reason`s; `document()` if not given. */
  readonly parts?: object
}

/** Write an answer. Fails with `Incomplete` when parts of it could not be read. */
export const writeAnswer = (
  as: "text" | "json" | "ndjson",
  config: Loss,
  answer: Answer
): Effect.Effect<void, Incomplete | OutputError> =>
  Effect.suspend(() => {
    const losses = lossesIn(answer.parts ?? answer.document())
    const line = (record: object) => `${JSON.stringify(record)}\n`
    const written = as === "json"
      ? line({ ...answer.document(), losses: losses.count })
      : as === "ndjson"
      ? [...answer.records(), { record: "end", losses: losses.count }].map(line).join("")
      : answer.text() + lossesLine(losses)
    return Effect.zipRight(writeText(written), checkWhole(losses, config))
  })

/** The problems of a list as records of `--ndjson`. */
export const problemRecords = (problems: ReadonlyArray<Reason>): ReadonlyArray<object> =>
  problems.map((problem) => ({ record: "problem", problem }))
