import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { parseForeignJson } from "../../core/process/ForeignJson.ts"
import type { Reason } from "../../core/Reason.ts"
import { DUMP_VERSION, DumpDocument, DumpRecord } from "../Report.ts"
import { NotADump } from "./SnapshotDiff.ts"

// What newer dumps say more, such as counters of programs, is compared too; a key or value may be any JSON, but is there.
const LENIENT = { onExcessProperty: "preserve", exact: true } as const
const decodeDocument = Schema.decodeUnknownEither(DumpDocument, LENIENT)
const decodeRecord = Schema.decodeUnknownEither(DumpRecord, LENIENT)

/**
 * The dump in a file's text: the document of `dump --json`, or the lines of `dump --ndjson`.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseDump = (text: string, subject: string): Either.Either<DumpDocument, NotADump> =>
  Either.gen(function*() {
    const first = parseForeignJson(text.slice(0, Math.max(text.indexOf("\n"), 0)))
    const isLines = Either.isRight(first) && isRecord(first.right)
    if (isLines) yield* checkVersion(first.right)
    const document = yield* isLines ? documentOfLines(text) : parseForeignJson(text)
    yield* checkVersion(document)
    return yield* Either.mapLeft(decodeDocument(document), firstIssue)
  }).pipe(Either.mapLeft((why) => new NotADump({ subject, why: why.split("\n", 1)[0] })))

/** Documents of other versions are refused by their number, not by the first field that differs. */
const checkVersion = (json: unknown): Either.Either<void, string> =>
  typeof json === "object" && json !== null && "schema" in json && "version" in json && json.version !== DUMP_VERSION
    ? Either.left(
      `it is a dump of version ${JSON.stringify(json.version)}, and this ktstr reads version ${DUMP_VERSION}`
    )
    : Either.void

/** `maps.0.entries: is missing` */
const firstIssue = (error: ParseResult.ParseError): string => {
  const [issue] = ParseResult.ArrayFormatter.formatErrorSync(error)
  return `${issue.path.map(String).join(".")}: ${issue.message}`
}

const isRecord = (json: unknown): boolean =>
  typeof json === "object" && json !== null && "record" in json && json.record === "dump"

/** The document that the records are the lines of. */
const documentOfLines = (text: string): Either.Either<object, string> => {
  const maps = new Map<number, { entries: Array<unknown>; [field: string]: unknown }>()
  const programs: Array<unknown> = []
  const problems: Array<Reason> = []
  let header: object = {}
  let line = 0
  for (let start = 0; start < text.length;) {
    const end = text.indexOf("\n", start)
    const json = parseForeignJson(text.slice(start, end < 0 ? text.length : end))
    start = end < 0 ? text.length : end + 1
    line++
    const record = Either.flatMap(json, (value) => Either.mapLeft(decodeRecord(value), firstIssue))
    if (Either.isLeft(record)) return Either.left(`line ${line}: ${record.left.split("\n", 1)[0]}`)
    switch (record.right.record) {
      case "dump":
        header = record.right
        break
      case "map":
        maps.set(record.right.id, { ...record.right, entries: [], truncated: true, problem: null })
        break
      case "entry":
        maps.get(record.right.id)?.entries.push(record.right)
        break
      case "mapEnd":
        Object.assign(maps.get(record.right.id) ?? {}, {
          truncated: record.right.truncated,
          problem: record.right.problem
        })
        break
      case "program":
        programs.push(record.right)
        break
      case "problem":
        problems.push(record.right.problem)
    }
  }
  return Either.right({ ...header, maps: [...maps.values()], programs, problems })
}
