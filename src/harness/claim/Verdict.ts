import * as Schema from "effect/Schema"

/**
 * The result of a run. `inconclusive`: what was to be judged could not be measured; `skip`: nothing was run.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Outcome = Schema.Literal("pass", "fail", "inconclusive", "skip").annotations({ identifier: "Outcome" })
/**
 * The type that the Schema `Outcome` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Outcome = typeof Outcome.Type

/**
 * One thing that was judged: `kind` for programs, `label` for people, and what was seen and wanted, as text.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Detail = Schema.Struct({
  kind: Schema.Literal(
    "claim",
    "progress",
    "records",
    "kernel",
    "operation",
    "payload",
    "scheduler refused",
    "scheduler died",
    "scheduler late",
    "scheduler exited",
    "scheduler stalled",
    "scheduler error",
    "scheduler other",
    "scheduler partial",
    "scheduler busy",
    "idle CPU",
    "guest panicked",
    "guest ended",
    "agent starved",
    "time limit"
  ),
  outcome: Outcome,
  label: Schema.String,
  observed: Schema.NullOr(Schema.String),
  wanted: Schema.NullOr(Schema.String)
}).annotations({ identifier: "Detail" })
/**
 * The type that the Schema `Detail` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Detail = typeof Detail.Type

/**
 * An outcome, and all that was judged: what is worst first.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Verdict = Schema.Struct({ outcome: Outcome, details: Schema.Array(Detail) }).annotations({
  identifier: "Verdict"
})
/**
 * The type that the Schema `Verdict` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Verdict = typeof Verdict.Type

/** A detail; not given, nothing was seen or wanted. */
export const detail = (
  kind: Detail["kind"],
  outcome: Detail["outcome"],
  label: string,
  observed: string | null = null,
  wanted: string | null = null
): Detail => ({ kind, outcome, label, observed, wanted })

/** From worst to best. */
const ORDER: ReadonlyArray<Outcome> = ["fail", "inconclusive", "pass", "skip"]

/**
 * The verdict of details: the worst of their outcomes. Nothing judged is inconclusive, and never a pass.
 *
 * @since 0.1.0
 * @category combining
 */
export const verdictOf = (details: ReadonlyArray<Detail>): Verdict => {
  const sorted = details.toSorted((a, b) => ORDER.indexOf(a.outcome) - ORDER.indexOf(b.outcome))
  return { outcome: sorted.at(0)?.outcome ?? "inconclusive", details: sorted }
}
