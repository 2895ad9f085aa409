import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { basename } from "node:path"
import { FetchFailed, platformText } from "../../Errors.ts"
import { stage } from "../../Progress.ts"

/** Why one attempt failed, and whether another one may do better. */
class AttemptFailed extends Schema.TaggedError<AttemptFailed>()("AttemptFailed", {
  why: Schema.String,
  hint: Schema.String,
  again: Schema.Boolean,
  status: Schema.optional(Schema.Int)
}) {}

/** The conditions for resuming a download, stored beside the part as `.part.json`. */
const PartOf = Schema.parseJson(Schema.Struct({ url: Schema.String, validator: Schema.String }))

const ATTEMPTS = 6
/** Kernel sources have 150 MB. */
const LIMIT = 2 ** 30
/** A server that says nothing for this long has gone. */
const STALL = "60 seconds"
const PAUSE = Schedule.union(Schedule.exponential("200 millis"), Schedule.spaced("10 seconds"))

const HINT_NETWORK = "check the network and the URL, and try again"
const HINT_ADDRESS = "check the URL"
const HINT_SERVER = "try again later, or use another server"

/**
 * Get `url` (http or https) into `file`, whole or not at all. What arrives goes to `file.part`, which a cut connection, a
 * failure or an interruption leaves, and the next attempt or run goes on from there if the server still has the same file
 * (ETag or Last-Modified, RFC 9110 section 13.1.5) and else begins anew. Its size is checked where the server tells it.
 *
 * @param options.sha256 64 hex digits that the content must have; one with another is removed
 * @param options.limit the most bytes that it may have; default 1 GiB. Nothing of a larger file is kept.
 * @param options.attempts how often a connection, a server that is busy or a rest is tried for; 6 if not given
 */
export const download = Effect.fn("Download.download")(
  function*(
    url: string,
    file: string,
    options: {
      readonly sha256?: string | undefined
      readonly attempts?: number | undefined
      readonly limit?: number | undefined
    } = {}
  ): Effect.fn.Return<void, FetchFailed, FileSystem.FileSystem | HttpClient.HttpClient> {
    const attempts = options.attempts ?? ATTEMPTS
    const { part, state } = partsOf(file)
    const fs = yield* FileSystem.FileSystem
    const work = Effect.gen(function*() {
      yield* receive(url, part, state, options.limit ?? LIMIT).pipe(
        Effect.retry({ while: (error) => error.again, times: attempts - 1, schedule: PAUSE }),
        Effect.mapError((error) =>
          error.again && attempts > 1
            ? new AttemptFailed({
              why: `${error.why} (the last of ${attempts} attempts)`,
              hint: error.hint,
              again: true,
              status: error.status
            })
            : error
        )
      )
      if (options.sha256 !== undefined) yield* verify(part, state, options.sha256)
      yield* fs.rename(part, file)
      yield* fs.remove(state, { force: true })
    })
    yield* Effect.catchAll(work, (error) =>
      Effect.flatMap(resumption(url, part, state), (kept) => {
        const { again, hint: advice, status, why } = error._tag === "AttemptFailed" ? error : unwritable(error)
        const hint = again && kept !== undefined ? `${advice}: the ${kept.from} bytes received so far are kept` : advice
        return new FetchFailed({
          step: "download",
          subject: url,
          why,
          hint,
          ...(status === undefined ? {} : { status })
        })
      }))
  }
)

const partsOf = (file: string) => ({ part: `${file}.part`, state: `${file}.part.json` })

/** Let the server complete `part`, and compare its size with what the server said. */
const receive = (
  url: string,
  part: string,
  state: string,
  limit: number
): Effect.Effect<void, AttemptFailed, FileSystem.FileSystem | HttpClient.HttpClient> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const client = HttpClient.withTracerPropagation(HttpClient.followRedirects(yield* HttpClient.HttpClient), false)
    const discard = Effect.zipRight(fs.remove(part, { force: true }), fs.remove(state, { force: true }))
    const resume = yield* resumption(url, part, state)
    const request = HttpClientRequest.get(url, {
      headers: {
        // a file is asked for as it is: a compressed one must not be unpacked on the way
        "accept-encoding": "identity",
        ...(resume === undefined ? {} : { "range": `bytes=${resume.from}-`, "if-range": resume.validator })
      }
    })
    const response = yield* client.execute(request).pipe(
      Effect.timeoutFail({ duration: STALL, onTimeout: () => transport("the server does not answer") })
    )
    const { headers, status } = response
    if (status === 416) {
      yield* discard
      return yield* transport("the server has no more of the file than was already received")
    }
    if (status !== 200 && status !== 206) return yield* refusal(status)
    const encoding = headers["content-encoding"] ?? "identity"
    if (encoding !== "identity") {
      return yield* fatal(
        `the server answered with content-encoding ${encoding} although none was requested`,
        HINT_SERVER
      )
    }
    if (/^text\/html\b/i.test(headers["content-type"] ?? "")) return yield* webPage()

    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers["content-range"] ?? "")
    if (status === 206) {
      const validator = validatorOf(response)
      const isRest = resume !== undefined && range !== null && Number(range[1]) === resume.from &&
        (validator === undefined || validator === resume.validator)
      if (!isRest) {
        yield* discard
        return yield* transport("the server sent a different part of the file than was requested")
      }
    } else {
      yield* fs.writeFile(part, new Uint8Array(0))
      const validator = validatorOf(response)
      if (validator === undefined) yield* fs.remove(state, { force: true })
      else yield* fs.writeFileString(state, yield* Effect.orDie(Schema.encode(PartOf)({ url, validator })))
    }
    const from = status === 206 && resume !== undefined ? resume.from : 0
    const told = status === 206 ? range?.[2] : headers["content-length"]
    const size = told === undefined || !/^\d+$/.test(told) ? undefined : Number(told)

    const tooLarge = fatal(`the file is larger than the limit of ${limit} bytes`, HINT_ADDRESS)
    if (size !== undefined && size > limit) {
      yield* discard
      return yield* tooLarge
    }
    let total = from
    const received = yield* response.stream.pipe(
      Stream.mapEffect((piece) => (total += piece.length) > limit ? tooLarge : Effect.succeed(piece)),
      Stream.timeoutFail(() => transport("the server stopped sending"), STALL),
      Stream.run(fs.sink(part, { flag: "a" })),
      stage(`download ${basename(part, ".part")}${amount(from, size)}`, "Download.transfer", { part, from }),
      Effect.either
    )
    if (Either.isLeft(received) && received.left._tag !== "ResponseError") {
      // neither will become less when it is tried again: a full disk must not stay full
      if (total > limit || isDiskFull(received.left)) yield* discard
      return yield* received.left
    }
    const bytes = Number((yield* fs.stat(part)).size)
    // the numbers tell a cut from an announcement that was a lie
    if (size === undefined ? Either.isLeft(received) || bytes === 0 : bytes < size) {
      const all = size === undefined ? "" : ` of ${size}`
      return yield* transport(`the connection ended after ${bytes}${all} bytes`)
    }
    if (size !== undefined && bytes > size) {
      yield* discard
      return yield* transport(`the server announced ${size} bytes and sent ${bytes}`)
    }
    if (yield* looksLikeWebPage(part)) {
      yield* discard
      return yield* webPage()
    }
  }).pipe(
    Effect.mapError((error) => {
      if (error._tag === "AttemptFailed") return error
      if (error._tag === "RequestError" || error._tag === "ResponseError") {
        return error.reason === "InvalidUrl" ? fatal("not a URL", HINT_ADDRESS) : transport(causeOf(error))
      }
      return unwritable(error)
    })
  )

/** Where an earlier attempt at the same file stopped; undefined where there is nothing to go on from. */
const resumption = (
  url: string,
  part: string,
  state: string
): Effect.Effect<{ readonly from: number; readonly validator: string } | undefined, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const before = yield* Schema.decode(PartOf)(yield* fs.readFileString(state))
    const from = Number((yield* fs.stat(part)).size)
    return before.url === url && from > 0 ? { from, validator: before.validator } : undefined
  }).pipe(Effect.orElseSucceed(() => undefined))

/**
 * The validator of the file that a server sent. A weak ETag does not identify it byte for byte (RFC 9110 section
 * 8.8.1).
 */
const validatorOf = ({ headers }: HttpClientResponse.HttpClientResponse): string | undefined => {
  const tag = headers["etag"]
  return tag !== undefined && tag.startsWith("\"") ? tag : headers["last-modified"]
}

const MIB = 2 ** 20
const amount = (from: number, size: number | undefined): string => {
  if (size === undefined) return ""
  const rest = `${((size - from) / MIB).toFixed(1)} MiB`
  return from === 0 ? `, ${rest}` : `, the last ${rest}`
}

const verify = (part: string, state: string, sha256: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const hash = createHash("sha256")
    yield* stage(`check ${basename(part, ".part")}`, "Download.check", { part })(
      Stream.runForEach(fs.stream(part, { chunkSize: MIB }), (chunk) => Effect.sync(() => hash.update(chunk)))
    )
    const got = hash.digest("hex")
    if (got === sha256) return
    yield* fs.remove(part, { force: true })
    yield* fs.remove(state, { force: true })
    return yield* fatal(`its sha256 is ${got}, not ${sha256}`, "try again, or use another server: nothing was kept")
  })

/** Servers that show a page to a person give any content type. */
const looksLikeWebPage = (path: string): Effect.Effect<boolean, PlatformError, FileSystem.FileSystem> =>
  Effect.flatMap(
    FileSystem.FileSystem,
    (fs) =>
      Effect.map(Stream.mkString(Stream.decodeText(fs.stream(path, { bytesToRead: 512 }))), (start) =>
        /^\s*<(!doctype html|html)\b/i.test(start))
  )

/** Answers that a server gives to a request that is in order: it is busy, or what is behind it does not work. */
const BUSY = new Set([408, 425, 429, 500, 502, 503, 504])

const refusal = (status: number): AttemptFailed =>
  new AttemptFailed({
    why: `the server answered ${status}`,
    hint: BUSY.has(status) ? HINT_SERVER : HINT_ADDRESS,
    again: BUSY.has(status),
    status
  })

const webPage = (): AttemptFailed => fatal("the server answered with a web page, not with a file", HINT_ADDRESS)

const transport = (why: string): AttemptFailed => new AttemptFailed({ why, hint: HINT_NETWORK, again: true })
const fatal = (why: string, hint: string): AttemptFailed => new AttemptFailed({ why, hint, again: false })

const isDiskFull = (error: { readonly message: string }): boolean => /\bENOSPC\b/.test(error.message)

const unwritable = (error: PlatformError): AttemptFailed =>
  fatal(
    platformText(error),
    "free some space, or choose a directory that you can write"
  )

/** The innermost cause of an error: "connect ECONNREFUSED 127.0.0.1:9". */
const causeOf = (error: HttpClientError): string => {
  let deepest: unknown = error
  while (deepest instanceof Error && deepest.cause instanceof Error) deepest = deepest.cause
  if (!(deepest instanceof Error)) return String(deepest)
  return deepest.message !== "" ? deepest.message : "code" in deepest ? String(deepest.code) : deepest.name
}
