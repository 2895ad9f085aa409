import * as Schema from "effect/Schema"
import { GuestTime, nanosOf } from "./GuestTime.ts"

/** A count that a worker's loop takes. */
const Count = Schema.Int.pipe(Schema.between(0, 2 ** 32))
const Optional = { exact: true } as const

/**
 * The work of a worker, done over and over; a pass is one unit. Parameters left out have the defaults of `WORK_TYPES`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const WorkType = Schema.Union(
  Schema.Struct({ type: Schema.Literal("spin"), turns: Schema.optionalWith(Count, Optional) }),
  Schema.Struct({ type: Schema.Literal("yield"), turns: Schema.optionalWith(Count, Optional) }),
  Schema.Struct({ type: Schema.Literal("mixed"), turns: Schema.optionalWith(Count, Optional) }),
  Schema.Struct({
    type: Schema.Literal("bursty"),
    on: Schema.optionalWith(GuestTime, Optional),
    off: Schema.optionalWith(GuestTime, Optional)
  }),
  Schema.Struct({ type: Schema.Literal("timer"), interval: Schema.optionalWith(GuestTime, Optional) }),
  Schema.Struct({ type: Schema.Literal("pipe"), turns: Schema.optionalWith(Count, Optional) }),
  Schema.Struct({ type: Schema.Literal("futexPair"), turns: Schema.optionalWith(Count, Optional) }),
  Schema.Struct({
    type: Schema.Literal("fanOut"),
    wakees: Schema.optionalWith(Schema.Int.pipe(Schema.between(1, 64)), Optional),
    turns: Schema.optionalWith(Count, Optional),
    interval: Schema.optionalWith(GuestTime, Optional)
  }),
  Schema.Struct({
    type: Schema.Literal("mutex"),
    contenders: Schema.optionalWith(Schema.Int.pipe(Schema.between(2, 64)), Optional),
    held: Schema.optionalWith(Count, Optional),
    free: Schema.optionalWith(Count, Optional)
  }),
  Schema.Struct({ type: Schema.Literal("forkExit") }),
  Schema.Struct({
    type: Schema.Literal("pageFaults"),
    pages: Schema.optionalWith(Schema.Int.pipe(Schema.between(1, 65536)), Optional)
  }),
  Schema.Struct({ type: Schema.Literal("affinityChurn"), turns: Schema.optionalWith(Count, Optional) }),
  Schema.Struct({ type: Schema.Literal("niceSweep"), turns: Schema.optionalWith(Count, Optional) })
).annotations({ identifier: "WorkType" })
/**
 * The type that the Schema `WorkType` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type WorkType = typeof WorkType.Type

interface Parameter {
  readonly name: string
  /** A number, or a time as text. */
  readonly byDefault: number | string
}

interface WorkTypeEntry {
  readonly name: WorkType["type"]
  /** The effect on the kernel. */
  readonly does: string
  readonly params: ReadonlyArray<Parameter>
  /** How many workers work together; a parameter's name: that many, and `plus` more. */
  readonly together: number | { readonly param: string; readonly plus: number }
}

/** Every work type, in the order of the agent's table (guest-agent/work.c `types`). */
export const WORK_TYPES: ReadonlyArray<WorkTypeEntry> = [
  // telemetry costs a unit as much as 25 turns: below 1 % of these
  { name: "spin", does: "computes", params: [{ name: "turns", byDefault: 4096 }], together: 1 },
  { name: "yield", does: "computes and yields", params: [{ name: "turns", byDefault: 1024 }], together: 1 },
  {
    name: "mixed",
    does: "computes, and yields half of the time",
    params: [{ name: "turns", byDefault: 1024 }],
    together: 1
  },
  {
    name: "bursty",
    does: "computes for `on` of CPU time, sleeps for `off`",
    params: [{ name: "on", byDefault: "50 millis" }, { name: "off", byDefault: "100 millis" }],
    together: 1
  },
  {
    name: "timer",
    does: "wakes up each `interval`; how late is counted",
    params: [{ name: "interval", byDefault: "1 millis" }],
    together: 1
  },
  {
    name: "pipe",
    does: "two send each other a message in turns",
    params: [{ name: "turns", byDefault: 1024 }],
    together: 2
  },
  {
    name: "futexPair",
    does: "two wake each other by a futex in turns",
    params: [{ name: "turns", byDefault: 1024 }],
    together: 2
  },
  {
    name: "fanOut",
    does: "one wakes `wakees` at once, each `interval`",
    params: [{ name: "turns", byDefault: 1024 }, { name: "interval", byDefault: "1 millis" }],
    together: { param: "wakees", plus: 1 }
  },
  {
    name: "mutex",
    does: "`contenders` take one lock in turns",
    params: [{ name: "held", byDefault: 256 }, { name: "free", byDefault: 1024 }],
    together: { param: "contenders", plus: 0 }
  },
  { name: "forkExit", does: "makes a process, which ends at once", params: [], together: 1 },
  { name: "pageFaults", does: "faults `pages` in", params: [{ name: "pages", byDefault: 256 }], together: 1 },
  {
    name: "affinityChurn",
    does: "moves itself to a random CPU",
    params: [{ name: "turns", byDefault: 1024 }],
    together: 1
  },
  {
    name: "niceSweep",
    does: "takes each nice value, from -20 to 19",
    params: [{ name: "turns", byDefault: 1024 }],
    together: 1
  }
]

/** How many are together where a parameter does not say. */
const TOGETHER = 4

/** A work type's entry, and its number in the agent. */
export const workTypeEntry = (work: WorkType): { readonly entry: WorkTypeEntry; readonly number: number } => {
  const number = WORK_TYPES.findIndex(({ name }) => name === work.type)
  return { entry: WORK_TYPES[number], number }
}

const given = (work: WorkType, name: string): unknown => new Map<string, unknown>(Object.entries(work)).get(name)

/** The time that a unit of this work sleeps, in nanoseconds. */
export const sleepOf = (work: WorkType): number =>
  Math.max(
    0,
    ...workTypeEntry(work).entry.params.filter(({ name }) => name === "off" || name === "interval").map(
      ({ byDefault, name }) => nanosOf(String(given(work, name) ?? byDefault))
    )
  )

/** How many workers of this type work together. */
export const togetherOf = (work: WorkType): number => {
  const { together } = workTypeEntry(work).entry
  if (typeof together === "number") return together
  const count = given(work, together.param)
  return (typeof count === "number" ? count : TOGETHER) + together.plus
}

/** The parameters as the agent takes them: counts, and times in nanoseconds. */
export const workParameters = (work: WorkType): ReadonlyArray<number> =>
  workTypeEntry(work).entry.params.map(({ byDefault, name }) => {
    const value = given(work, name) ?? byDefault
    return typeof value === "string" ? nanosOf(value) : Number(value)
  })
