import * as Either from "effect/Either"
import type { Header } from "../../bpf/Report.ts"
import { parseForeignJson } from "../../core/process/ForeignJson.ts"
import type { Reason } from "../../core/Reason.ts"
import type { SchedSnapshot } from "../../sched/index.ts"
import { problemRecords } from "../source/answer.ts"

/** The parts of a reading that have many elements: the record of one, and the part that it is of. */
const PARTS = [
  ["runQueue", "runQueues"],
  ["dispatchQueue", "dispatchQueues"],
  ["task", "tasks"],
  ["domains", "domains"],
  ["finding", "findings"]
] as const

const isReason = (part: object): part is Reason => "kind" in part

/** One record for each element of such parts, and one for all else: a part that could not be had is there too. */
export const schedRecords = (header: Header, sched: SchedSnapshot): ReadonlyArray<object> => {
  const { problems } = sched
  const missing = PARTS.flatMap(([, part]) => isReason(sched[part]) ? [sched[part]] : [])
  const head = Object.entries(sched).filter(([name, part]) =>
    name !== "problems" && (isReason(part) || !PARTS.some(([, listed]) => listed === name))
  )
  return [
    { record: "sched", ...header, ...Object.fromEntries(head) },
    ...PARTS.flatMap(([record, part]): ReadonlyArray<object> => {
      const elements = sched[part]
      return isReason(elements) ? [] : elements.map((element) => ({ record, ...element }))
    }),
    ...problemRecords([...missing, ...problems])
  ]
}

/** The document that such records were made of, to be checked; or why they are not such records. */
export const documentOfRecords = (text: string): Either.Either<object, string> =>
  Either.flatMap(Either.all(text.trimEnd().split("\n").map(parseForeignJson)), (records) =>
    Either.try({
      try: () => documentOf(records),
      catch: (error) => error instanceof Error ? error.message : String(error)
    }))

/** @throws Error where one is not a record, or the last one is missing */
const documentOf = ([first, ...lines]: ReadonlyArray<unknown>): object => {
  const { record: name, ...head } = recordOf(first)
  if (name !== "sched") throw new Error("its first record is not that of sched show --ndjson")
  const { freeze, kernel, schema, source, version, ...parts } = head
  const lists = new Map<string, Array<unknown>>(
    PARTS.flatMap(([record, part]) => part in parts ? [] : [[record, []]])
  )
  const problems: Array<unknown> = []
  const last = recordOf(lines.pop())
  if (last.record !== "end") throw new Error("its last record is missing")
  for (const line of lines) {
    const { record, ...element } = recordOf(line)
    if (record === "problem") problems.push(element["problem"])
    else lists.get(record)?.push(element)
  }
  // the reasons of parts come before the others
  const others = problems.slice(PARTS.filter(([, part]) => part in parts).length)
  return {
    freeze,
    kernel,
    schema,
    source,
    version,
    sched: {
      ...parts,
      ...Object.fromEntries(PARTS.flatMap(([record, part]) => part in parts ? [] : [[part, lists.get(record)]])),
      problems: others
    }
  }
}

const recordOf = (line: unknown): { readonly record: string; readonly [field: string]: unknown } => {
  if (typeof line !== "object" || line === null || !("record" in line) || typeof line.record !== "string") {
    throw new Error("not all of its lines are records")
  }
  return { ...line, record: line.record }
}
