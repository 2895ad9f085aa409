import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { join, resolve } from "node:path"
import { makeDirectories } from "../../core/CacheDir.ts"
import { platformText } from "../../core/Errors.ts"
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

/**
 * Keep a record in a folder of its own, `DIRECTORY/ID/run.json`; gives the record with its folder. Nothing is ever deleted
 * or overwritten: an id is used once.
 *
 * @since 0.1.0
 * @category writing
 */
export const keepRun = Effect.fn("RunFolder.keep")(
  function*(
    record: RunRecord,
    directory: string
  ): Effect.fn.Return<RunRecord, RunFolderError, FileSystem.FileSystem> {
    const fs = yield* FileSystem.FileSystem
    const folder = join(resolve(directory), record.host.id)
    const kept: RunRecord = { ...record, host: { ...record.host, directory: folder } }
    const text = `${JSON.stringify(yield* Effect.orDie(Schema.encode(RunRecord)(kept)), undefined, 2)}\n`
    yield* Effect.gen(function*() {
      yield* makeDirectories(resolve(directory))
      yield* fs.makeDirectory(folder)
      const part = join(folder, `${RECORD}.part`)
      yield* fs.writeFileString(part, text)
      yield* fs.rename(part, join(folder, RECORD))
    }).pipe(Effect.mapError((error) =>
      new RunFolderError({
        path: folder,
        why: platformText(error),
        hint: "give runsDirectory a directory that you can write, with free space"
      })
    ))
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
    const fs = yield* FileSystem.FileSystem
    const given = RUN_ID.test(run) ? join(resolve(directory), run) : resolve(run)
    const path = given.endsWith(".json") ? given : join(given, RECORD)
    const failed = (why: string, hint: string) => new RunFolderError({ path, why, hint })
    const text = yield* Effect.mapError(
      fs.readFileString(path),
      (error) => failed(platformText(error), "check the run's id")
    )
    const json = Either.try({ try: (): unknown => JSON.parse(text), catch: () => "not JSON" })
    if (Either.isLeft(json)) return yield* failed(json.left, "was it written by ktstr run?")
    const version = Schema.decodeUnknownEither(Schema.Struct({ schema: Schema.String }))(json.right)
    if (Either.isRight(version) && version.right.schema !== "ktstr.run/1") {
      return yield* failed(`it is of version ${version.right.schema.slice(0, 40)}`, "use the ktstr that wrote it")
    }
    return yield* Effect.mapError(
      Schema.decodeUnknown(RunRecord)(json.right),
      (error) =>
        failed(`not a run: ${error.message.replaceAll(/\s+/g, " ").slice(0, 200)}`, "was it written by ktstr run?")
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
