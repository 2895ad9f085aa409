import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type { Consistency } from "../../../src/bpf/Report.ts"
import type { DumpSource } from "../../../src/bpf/report/DumpSnapshot.ts"

/** The facts in which sources may differ. */
export interface SubjectFacts {
  /** The CPUs that the kernel with the maps can have. */
  readonly possibleCpus: number
  readonly consistency: Consistency
  /** Of a queue or stack: every element, or the one that would be popped next. */
  readonly queues: "all" | "next"
}

/** A source whose kernel holds the maps that test/bpf-src/contract-fill.sh makes. */
export class Subject extends Context.Tag("ktstr/test/Subject")<
  Subject,
  DumpSource & SubjectFacts & { readonly release: Effect.Effect<void> }
>() {}

/** The subject that `open` gives; `release` closes the scope it was opened in. */
export const subjectLayer = <E, R>(
  facts: SubjectFacts,
  open: Effect.Effect<DumpSource, E, R>
): Layer.Layer<Subject, E, Exclude<R, Scope.Scope>> =>
  Layer.scoped(
    Subject,
    Effect.gen(function*() {
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
      const { header, maps } = yield* Scope.extend(open, scope)
      return { ...facts, header, maps, release: Scope.close(scope, Exit.void) }
    })
  )
