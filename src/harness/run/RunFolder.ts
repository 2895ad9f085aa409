import * as FileSystem from "@effect/platform/FileSystem"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { randomUUID } from "node:crypto"
import { join, resolve } from "node:path"
import { makeDirectories } from "../../core/CacheDir.ts"
import { platformText } from "../../core/Errors.ts"
import { parseForeignJson } from "../../core/process/ForeignJson.ts"
import { readForeignText } from "../../core/process/ForeignText.ts"
import { RunRecord } from "../claim/RunRecord.ts"

/**
 * A run's folder cannot be written or read.
 *
 * @since 0.1.0
 * @category errors
 */
export class RunFolderError extends Schema.TaggedError<RunFolderError>("ktstr/RunFolderError")("RunFolderError", {
  path: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `the run's folder ${this.path}: ${this.why}; ${this.hint}`
  }
}

/** Where runs are kept where nothing else is said, below the working directory. */
export const RUNS_DIRECTORY = ".ktstr/runs"
const RECORD = "run.json"
const DUMP = "failure.json"
/** Bytes that the disk must have free for a run: the record of the smoke test takes 10 KiB. */
const ROOM = 2 ** 16

/**
 * The folder of one run: its id is used once, and nothing in it is ever deleted or overwritten.
 *
 * @since 0.1.0
 * @category models
 */
export interface RunFolder {
  readonly id: string
  readonly path: string
}

/** A new run's id: when it started, and what sets it apart from others of that second. */
export const newRunId = (startedAt: number): string =>
  `${new Date(startedAt).toISOString().replaceAll(/[-:]/g, "").slice(0, 15)}-${randomUUID().slice(0, 8)}`

const unwritable = (path: string) => (error: Parameters<typeof platformText>[0]): RunFolderError =>
  new RunFolderError({
    path,
    why: platformText(error),
    hint: "name a directory that you can write, with free space"
  })

/**
 * Make the folder of a run that is to come, `DIRECTORY/ID`; on a disk without room for its record it fails and leaves nothing.
 *
 * @since 0.1.0
 * @category writing
 */
export const makeRunFolder = Effect.fn("RunFolder.make")(
  function*(directory: string): Effect.fn.Return<RunFolder, RunFolderError, FileSystem.FileSystem> {
    const fs = yield* FileSystem.FileSystem
    const id = newRunId(yield* Clock.currentTimeMillis)
    const path = join(resolve(directory), id)
    const trial = join(path, `${RECORD}.part`)
    const tried = Effect.andThen(fs.writeFile(trial, new Uint8Array(ROOM)), fs.remove(trial)).pipe(
      Effect.onError(() => Effect.ignore(fs.remove(path, { recursive: true, force: true })))
    )
    yield* Effect.mapError(
      Effect.andThen(makeDirectories(resolve(directory)), Effect.andThen(fs.makeDirectory(path), tried)),
      unwritable(path)
    )
    return { id, path }
  }
)

/**
 * Keep a record as `run.json` of a run's folder, and a failed run's dump beside it; gives the record, which has the folder and
 * the dump's path in it.
 *
 * @since 0.1.0
 * @category writing
 */
export const keepRun = Effect.fn("RunFolder.keep")(
  function*(
    record: RunRecord,
    { id, path }: RunFolder,
    dump?: ReadonlyArray<Uint8Array>
  ): Effect.fn.Return<RunRecord, RunFolderError, FileSystem.FileSystem> {
    const fs = yield* FileSystem.FileSystem
    const dumped = dump === undefined ? null : join(path, DUMP)
    const kept: RunRecord = { ...record, host: { ...record.host, id, directory: path, dump: dumped } }
    const text = `${JSON.stringify(yield* Effect.orDie(Schema.encode(RunRecord)(kept)), undefined, 2)}\n`
    const file = join(path, RECORD)
    if (yield* Effect.mapError(fs.exists(file), unwritable(path))) {
      return yield* new RunFolderError({ path, why: "it has a run in it", hint: "make a folder for each run" })
    }
    const write = (file: string, bytes: Uint8Array) =>
      Effect.andThen(fs.writeFile(`${file}.part`, bytes), fs.rename(`${file}.part`, file)).pipe(
        Effect.onError(() => Effect.ignore(fs.remove(`${file}.part`, { force: true })))
      )
    if (dumped !== null) yield* Effect.mapError(write(dumped, Buffer.concat(dump ?? [])), unwritable(path))
    yield* Effect.mapError(write(file, Buffer.from(text)), unwritable(path))
    return kept
  }
)

/** A run's id, as it stands in the name of its folder. */
const RUN_ID = /^\d{8}T\d{6}-[0-9a-f]{8}$/

/**
 * The record of a run: by its id in `directory`, or by the path of its folder or its run.json.
 *
 * @since 0.1.0
 * @category reading
 */
export const readRun = Effect.fn("RunFolder.read")(
  function*(run: string, directory: string): Effect.fn.Return<RunRecord, RunFolderError, FileSystem.FileSystem> {
    const given = RUN_ID.test(run) ? join(resolve(directory), run) : resolve(run)
    const path = given.endsWith(".json") ? given : join(given, RECORD)
    const failed = (why: string, hint: string) => new RunFolderError({ path, why, hint })
    const text = yield* Effect.mapError(
      readForeignText(path),
      (why) => failed(why, "check the run's id")
    )
    const json = Either.mapLeft(parseForeignJson(text), (why) => `not JSON: ${why}`)
    if (Either.isLeft(json)) return yield* failed(json.left, "was it written by ktstr run?")
    const version = Schema.decodeUnknownEither(Schema.Struct({ schema: Schema.String }))(json.right)
    if (Either.isRight(version) && version.right.schema !== "ktstr.run/1") {
      return yield* failed(`it is of version ${version.right.schema.slice(0, 40)}`, "use the ktstr that wrote it")
    }
    return yield* Effect.mapError(
      Schema.decodeUnknown(RunRecord)(json.right),
      (error) => {
        const [{ message, path }] = ParseResult.ArrayFormatter.formatErrorSync(error)
        const why = `${path.join(".") || "it"}: ${message}`.replaceAll(/\s+/g, " ").slice(0, 200)
        return failed(`not a run: ${why}`, "was it written by ktstr run?")
      }
    )
  }
)

/** Names of the parts in which a replay differs from its run. The host's clock, and why a mode was chosen, do not count. */
export const differences = (before: RunRecord, after: RunRecord): ReadonlyArray<string> => {
  // as they are written: a record that was read has its members in the schema's order
  const [one, other] = [before, after].map((run) =>
    Schema.encodeSync(RunRecord)({ ...run, mode: { ...run.mode, why: "" } })
  )
  return (Object.keys(one) as Array<keyof RunRecord>).filter((name) =>
    name !== "host" && JSON.stringify(one[name]) !== JSON.stringify(other[name])
  )
}
