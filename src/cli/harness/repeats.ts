import * as Schema from "effect/Schema"
import type { RunRecord } from "../../harness/claim/RunRecord.ts"
import { differences } from "../../harness/run/RunFolder.ts"
import type { Cell } from "./cells.ts"

/** The runs of a command line, each with its cell, in their order. */
export type Runs = ReadonlyArray<readonly [Cell, RunRecord]>

/** Runs of one cell in an exact mode that should be the same and are not. */
export class NotDeterministic extends Schema.TaggedError<NotDeterministic>("ktstr/NotDeterministic")(
  "NotDeterministic",
  {
    /** How many runs were compared with the first of their cell. */
    repeated: Schema.Int,
    /** A line for each that is different. */
    differing: Schema.Array(Schema.String)
  }
) {
  override get message() {
    return `${this.differing.length} of ${this.repeated} repeated runs differ from their first, which is a bug: ${
      this.differing.join("; ")
    }`
  }
}

/**
 * The repeated runs that are not the same as the first of their cell, to the byte but for the host's clock, and how many
 * schedules there were in all.
 */
export const compareRepeats = (runs: Runs) => {
  const firsts = new Map<Cell, RunRecord>()
  const differing: Array<string> = []
  let repeated = 0
  for (const [cell, record] of runs) {
    const first = firsts.get(cell)
    if (first === undefined) {
      firsts.set(cell, record)
      continue
    }
    // in the other modes the host's load is in each record
    if (record.mode.mode !== "exact" && record.mode.mode !== "exact-coarse") continue
    repeated++
    const parts = differences(first, record)
    if (parts.length > 0) {
      const { kernel, seed, topology } = cell
      const what = `${record.host.id} of ${kernel}, ${topology.name}, seed ${seed}`
      differing.push(`${what} is not ${first.host.id} in ${parts.join(", ")}`)
    }
  }
  return { repeated, differing, schedules: new Set(runs.map(([, { phases }]) => JSON.stringify(phases))).size }
}
