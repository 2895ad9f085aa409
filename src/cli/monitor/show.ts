import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as JSONSchema from "effect/JSONSchema"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { DUMP_VERSION } from "../../bpf/Report.ts"
import * as NativeKoffi from "../../core/NativeKoffi.ts"
import { parseForeignJson } from "../../core/process/ForeignJson.ts"
import { readForeignText } from "../../core/process/ForeignText.ts"
import { FailureDocument } from "../../monitor/Failure.ts"
import { failurePage } from "../../monitor/FailurePage.ts"
import { Moment } from "../../monitor/moments/Moment.ts"
import { writeFile } from "../source/writeFile.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import { FileUnreadable, UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import { printable } from "../terminal/Printable.ts"
import { writeMessage } from "../terminal/Streams.ts"
import { failureText, momentText } from "./failureText.ts"

/** The file is not a dump of a failure, or of another version of ours. */
export class NotAFailure extends Schema.TaggedError<NotAFailure>("ktstr/NotAFailure")("NotAFailure", {
  path: Schema.String,
  why: Schema.String,
  version: Schema.optional(Schema.Number)
}) {
  override get message() {
    return this.version === undefined
      ? `${this.path} is not a dump of a failure: ${this.why}; make one with ktstr vm run --on-failure`
      : `${this.path} is a dump of version ${this.version}, and this ktstr reads version ${DUMP_VERSION}; use the ktstr that wrote it`
  }
}

/** Fields that only a newer ktstr writes are passed over. */
const decodeFailure = Schema.decodeUnknownEither(FailureDocument, { onExcessProperty: "ignore" })
const decodeMoment = Schema.decodeUnknownEither(Moment, { onExcessProperty: "ignore" })

const OfVersion = Schema.Struct({ failure: Schema.Unknown, version: Schema.Int })

/** The version of a dump that another ktstr wrote. */
const otherVersion = (json: unknown): number | undefined => {
  const version = Schema.is(OfVersion)(json) ? json.version : DUMP_VERSION
  return version === DUMP_VERSION ? undefined : version
}

/** Only a snapshot has a cause. */
const decodeEither = (json: unknown): Either.Either<FailureDocument | Moment, ParseResult.ParseError> =>
  typeof json === "object" && json !== null && "cause" in json ? decodeMoment(json) : decodeFailure(json)

const parse = <A>(
  text: string,
  path: string,
  decode: (json: unknown) => Either.Either<A, ParseResult.ParseError>
): Either.Either<A, NotAFailure> => {
  const notAFailure = (why: string, version?: number) =>
    new NotAFailure({ path, why: why.split("\n", 1)[0].slice(0, 200), version })
  return Either.flatMap(
    Either.mapLeft(parseForeignJson(text), notAFailure),
    (json) =>
      Either.mapLeft(decode(json), (error) => {
        const [{ message, path: at }] = ParseResult.ArrayFormatter.formatErrorSync(error)
        return notAFailure([...at, message].join(": "), otherVersion(json))
      })
  )
}

/** The dump in a file's text. */
export const parseFailure = (text: string, path: string): Either.Either<FailureDocument, NotAFailure> =>
  parse(text, path, decodeFailure)

interface Config {
  readonly html: Option.Option<string>
  readonly file: Option.Option<string>
  readonly schema: boolean
}

export const show = (config: Config) =>
  config.schema
    ? writeText(`${JSON.stringify(JSONSchema.make(FailureDocument), null, 2)}\n`)
    : Effect.gen(function*() {
      if (Option.isNone(config.file)) {
        return yield* new UsageError({
          problem: "say which file to show: one that vm run --on-failure or --snapshot wrote, or a failed run"
        })
      }
      const document = yield* open(config.file.value)
      if ("cause" in document) {
        if (Option.isNone(config.html)) return yield* writeText(momentText(document))
        return yield* new UsageError({
          problem: "--html makes a page of a failure, and this is a snapshot: leave out --html"
        })
      }
      if (Option.isNone(config.html)) return yield* writeText(failureText(document))
      yield* pageOf(document, config.html.value)
    }).pipe(Effect.provide(NativeKoffi.layer))

const pageOf = (document: FailureDocument, path: string) =>
  Effect.gen(function*() {
    yield* writeFile(path, [printable(failurePage(document))])
    writeMessage(`  ${escapeLine(path)}: written\n`)
  })

/** Make a page of the dump that a file is. */
export const writePage = (dump: string, path: string) =>
  Effect.gen(function*() {
    const document = yield* open(dump)
    if (!("cause" in document)) yield* pageOf(document, path)
  })

const open = (path: string) =>
  Effect.gen(function*() {
    const text = yield* Effect.mapError(
      readForeignText(path),
      (why) =>
        new FileUnreadable({
          what: path,
          why,
          hint: "give a file that vm run --on-failure or --snapshot wrote, or a failed run"
        })
    )
    return yield* parse(text, path, decodeEither)
  })
