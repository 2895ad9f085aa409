import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { RuleJudge } from "../../monitor/Rules.ts"
import type { Sample } from "../../monitor/Sample.ts"
import { copyWhile } from "../terminal/copyWhile.ts"
import { writeLive, writeScreen } from "../terminal/Output.ts"
import { restartTimeLimit } from "../terminal/timeLimit.ts"
import { sampleRecord, sampleText } from "./sampleText.ts"

/** How samples are shown. */
export interface SampleOptions {
  readonly every: Duration.Duration
  readonly ndjson: boolean
  readonly count: Option.Option<number>
}

/** Samples that a terminal's charts have. */
const CHART = 30

/** Show samples as they come, with how they stand to the rules, until `count` are shown or nobody reads. */
export const showSamples = <E, R>(samples: Stream.Stream<Sample, E, R>, { count, every, ndjson }: SampleOptions) => {
  const judge = new RuleJudge()
  const past: Array<Sample> = []
  const wanted = Option.match(count, { onNone: () => samples, onSome: (count) => Stream.take(samples, count) })
  return copyWhile(
    Stream.tap(wanted, () => restartTimeLimit(Duration.toMillis(every))),
    (sample) => {
      judge.take(sample)
      if (ndjson) return writeLive(sampleRecord(sample, judge.verdicts))
      const { columns, isTTY } = process.stdout
      const text = sampleText(sample, judge.verdicts, isTTY ? { columns, past } : undefined)
      past.push(sample)
      if (past.length >= CHART) past.shift()
      return writeScreen(text)
    }
  )
}
