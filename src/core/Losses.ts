import { formatReason, isLoss, type Reason, ReasonKind } from "./Reason.ts"

/**
 * How much of a document is missing: the number of its parts that could not be read whole, and the first of them. A part
 * that the kernel does not have, or that this source cannot see, is not a loss (`isLoss`).
 *
 * @since 0.1.0
 * @category models
 */
export class Losses {
  count = 0
  /** Why the first part is not whole, in words; null while nothing is lost. */
  first: string | null = null

  /** Count a part, if it has a problem that is a loss. */
  add(problem: Reason | null, subject = ""): void {
    if (problem === null || !isLoss(problem)) return
    this.first ??= `${subject}${formatReason(problem)}`
    this.count++
  }

  /** Count those of another part of the document. */
  include({ count, first }: Losses): void {
    this.first ??= first
    this.count += count
  }
}

const isKind = (kind: unknown): boolean => ReasonKind.literals.some((known) => known === kind)

const isReason = (value: object): value is Reason =>
  "kind" in value && "text" in value && typeof value.text === "string" && isKind(value.kind)

/** The losses among all `Reason`s in a document, or among those that `counts` is true of; one that is said twice once. */
export const lossesIn = (document: unknown, counts: (reason: Reason) => boolean = isLoss): Losses => {
  const losses = new Losses()
  const seen = new Set<string>()
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return
    if (!isReason(value)) return Object.values(value).forEach(visit)
    if (seen.has(value.text)) return
    seen.add(value.text)
    if (counts(value)) losses.add(value)
  }
  visit(document)
  return losses
}
