import * as Schema from "effect/Schema"
import { Header } from "../../bpf/Report.ts"
import { SchedDocument } from "../../sched/SchedDocument.ts"

/** The document of `ktstr sched show --json`: a dump's header, and the scheduler. */
export const ShowDocument = Schema.Struct({
  ...Header.fields,
  sched: SchedDocument,
  losses: Schema.Int.annotations({ description: "how many parts could not be read whole (exit code 1)" })
}).annotations({
  identifier: "SchedShow"
})
