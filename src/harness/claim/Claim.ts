import * as Schema from "effect/Schema"
import { GuestTime, nanosOf } from "../scenario/GuestTime.ts"

/**
 * A claim's subject: a path into a run's numbers, or two of them put together.
 *
 * @since 0.1.0
 * @category models
 */
export type Subject =
  | { readonly path: ReadonlyArray<string> }
  | { readonly ratio: readonly [Subject, Subject] }
  | { readonly difference: readonly [Subject, Subject] }

/**
 * The JSON form of a `Subject`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Subject: Schema.Schema<Subject> = Schema.Union(
  Schema.Struct({ path: Schema.Array(Schema.String) }),
  Schema.Struct({ ratio: Schema.Tuple(Schema.suspend(() => Subject), Schema.suspend(() => Subject)) }),
  Schema.Struct({ difference: Schema.Tuple(Schema.suspend(() => Subject), Schema.suspend(() => Subject)) })
).annotations({ identifier: "Subject" })

/** A number, or a time as text. */
const Bound = Schema.Union(Schema.Finite, GuestTime)
type Bound = typeof Bound.Type

/**
 * A claim as data: what is measured must be as `is` says. It can be judged again, over a stored run.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Claim = Schema.Struct({
  subject: Subject,
  is: Schema.Literal("at least", "at most", "between", "equal to"),
  bounds: Schema.Array(Bound).pipe(Schema.minItems(1), Schema.maxItems(2)),
  because: Schema.NullOr(Schema.String)
}).annotations({ identifier: "Claim" })
/**
 * The type that the Schema `Claim` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type Claim = typeof Claim.Type

/**
 * The units of what can be claimed about.
 *
 * @since 0.1.0
 * @category models
 */
export type Unit = "nanos" | "count" | "number"

/**
 * A number of a run, picked by a recorder: nothing can be done with it but to claim something about it. `U` is its unit.
 *
 * @since 0.1.0
 * @category models
 */
export interface Picked<U extends Unit> {
  readonly [PICKED]: U
}

const PICKED: unique symbol = Symbol.for("ktstr/Picked")
/** Where a recorder keeps the path: functions are not data. */
const SUBJECTS = new WeakMap<object, Subject>()

/**
 * The numbers of a group of workers.
 *
 * @since 0.1.0
 * @category models
 */
export interface GroupSubjects {
  readonly units: Picked<"count">
  readonly cpu: Picked<"nanos">
  readonly cpuStat: Picked<"nanos">
  readonly wait: Picked<"nanos">
  readonly migrations: Picked<"count">
  readonly runs: Picked<"count">
  readonly gap: { readonly max: Picked<"nanos"> }
}

/**
 * The subjects of claims about a scenario with groups `G` and steps `S`. `groups` is over all steps: the sum, or the longest
 * gap. `latency` is of the whole run.
 *
 * @since 0.1.0
 * @category models
 */
export interface RunSubjects<G extends string, S extends string> {
  readonly groups: {
    readonly [Name in G]: GroupSubjects & {
      readonly latency: {
        readonly count: Picked<"count">
        readonly p50: Picked<"nanos">
        readonly p99: Picked<"nanos">
        readonly max: Picked<"nanos">
      }
    }
  }
  readonly phases: { readonly [Name in S]: { readonly groups: { readonly [Group in G]: GroupSubjects } } }
  readonly scheduler: { readonly attach: Picked<"nanos">; readonly exits: Picked<"count"> }
}

/**
 * Something else than picking was done with a recorder, or a bound makes no sense.
 *
 * @since 0.1.0
 * @category errors
 */
export class ClaimMisuse extends Schema.TaggedError<ClaimMisuse>("ktstr/ClaimMisuse")("ClaimMisuse", {
  why: Schema.String
}) {
  override get message() {
    return `${this.why}; a claim's subject only picks a number of the run: use ratio or difference to put two together`
  }
}

/** A recorder: whatever is read of it, it is at a path; anything else throws `ClaimMisuse`. */
const recorder = (path: ReadonlyArray<string>): object => {
  const misuse = (what: string): never => {
    throw new ClaimMisuse({ why: `${what} of ${path.join(".") || "a run"}, whose value is not known yet` })
  }
  const proxy: object = new Proxy(() => undefined, {
    get: (_, name) => typeof name === "symbol" ? misuse("arithmetic or text") : recorder([...path, name]),
    apply: () => misuse("a call"),
    set: () => misuse("a change"),
    has: () => misuse("a look into"),
    ownKeys: () => misuse("a list")
  })
  SUBJECTS.set(proxy, { path })
  return proxy
}

/** Whether what a subject picks are nanoseconds. */
export const isTime = (subject: Subject): boolean =>
  "path" in subject
    ? /^(cpu|cpuStat|wait|attach|p50|p99|max)$/.test(subject.path.at(-1) ?? "")
    : "difference" in subject && isTime(subject.difference[0])

const subjectOf = (picked: object): Subject => {
  const subject = SUBJECTS.get(picked)
  if (subject === undefined) throw new ClaimMisuse({ why: "a claim about a value that is not of the run" })
  return subject
}

/** Two subjects of one unit put together. */
const combined = <U extends Unit>(
  a: object,
  b: object,
  by: (both: readonly [Subject, Subject]) => Subject
): Picked<U> => {
  const both = [subjectOf(a), subjectOf(b)] as const
  if (isTime(both[0]) !== isTime(both[1])) throw new ClaimMisuse({ why: "a time put together with what is none" })
  const made = {}
  SUBJECTS.set(made, by(both))
  return made as Picked<U>
}

/**
 * One number divided by another of the same unit. 0 below is inconclusive.
 *
 * @since 0.1.0
 * @category combining
 */
export const ratio = <U extends Unit>(a: Picked<U>, b: Picked<NoInfer<U>>): Picked<"number"> =>
  combined(a, b, (ratio) => ({ ratio }))

/**
 * One number less another of the same unit.
 *
 * @since 0.1.0
 * @category combining
 */
export const difference = <U extends Unit>(a: Picked<U>, b: Picked<NoInfer<U>>): Picked<U> =>
  combined(a, b, (difference) => ({ difference }))

/**
 * A bound of a claim: of times a text, as in "250 millis", of all else a number.
 *
 * @since 0.1.0
 * @category models
 */
export type BoundOf<U extends Unit> = U extends "nanos" ? string : number

/**
 * A claim that is made, to which a reason can be added.
 *
 * @since 0.1.0
 * @category models
 */
export interface MadeClaim extends Claim {
  /** Why it must be so; printed behind the claim. */
  readonly because: string | null
}

/**
 * Say something about a number of the run.
 *
 * @since 0.1.0
 * @category constructors
 */
export const claim = <U extends Unit>(picked: Picked<U>, because?: string) => {
  const subject = subjectOf(picked)
  const isBound = isTime(subject) ? Schema.is(GuestTime) : Schema.is(Schema.Finite)
  const make = (is: Claim["is"], ...bounds: ReadonlyArray<Bound>): MadeClaim => {
    for (const bound of bounds) {
      if (isBound(bound)) continue
      const wanted = isTime(subject) ? `a time, as in "250 millis"` : "a number"
      throw new ClaimMisuse({ why: `${String(bound)} where ${wanted} is the bound` })
    }
    const [from, to] = bounds.map(boundValue)
    if (to !== undefined && to < from) throw new ClaimMisuse({ why: `nothing is between ${bounds.join(" and ")}` })
    return { subject, is, bounds, because: because ?? null }
  }
  return {
    atLeast: (bound: BoundOf<U>): MadeClaim => make("at least", bound),
    atMost: (bound: BoundOf<U>): MadeClaim => make("at most", bound),
    between: (from: BoundOf<U>, to: BoundOf<U>): MadeClaim => make("between", from, to),
    equals: (bound: BoundOf<U>): MadeClaim => make("equal to", bound)
  }
}

/** A bound as a number; a time in nanoseconds. */
export const boundValue = (bound: Bound): number => typeof bound === "number" ? bound : nanosOf(bound)

/**
 * The claims that a function makes of a recorder.
 *
 * @since 0.1.0
 * @category constructors
 */
export const recordClaims = <G extends string, S extends string>(
  make: (run: RunSubjects<G, S>) => ReadonlyArray<Claim>
): ReadonlyArray<Claim> => make(recorder([]) as RunSubjects<G, S>)
