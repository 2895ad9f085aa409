import { graver, type Reason } from "./Reason.ts"

/** Problems that are kept; the others are counted. */
const KEPT = 64

/**
 * The problems of one walk or listing: the first are kept, the others counted, so that no guest makes this long.
 *
 * @since 0.1.0
 * @category models
 */
export class WalkProblems {
  private readonly kept: Array<Reason> = []
  private count = 0
  private gravest: Reason["kind"] = "empty"

  /** Note a problem; beyond the limit it is only counted. */
  add(problem: Reason): void {
    if (this.kept.length < KEPT) this.kept.push(problem)
    this.gravest = graver(this.gravest, problem.kind)
    this.count++
  }

  /** How many there are, those that were not kept too. */
  get total(): number {
    return this.count
  }

  /** The first in words with a count of the others, of the most serious kind among them; null when all went well. */
  get reason(): Reason | null {
    if (this.count === 0) return null
    const [{ text }] = this.kept
    return { kind: this.gravest, text: this.count === 1 ? text : `${text} (and ${this.count - 1} more)` }
  }

  /** Those that were kept; where there were others, how many as the last. */
  get list(): ReadonlyArray<Reason> {
    const more = this.count - this.kept.length
    return more === 0 ? this.kept : [...this.kept, { kind: this.gravest, text: `and ${more} more problems` }]
  }
}
