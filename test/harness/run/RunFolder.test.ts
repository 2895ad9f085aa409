import * as NodeContext from "@effect/platform-node/NodeContext"
import * as FileSystem from "@effect/platform/FileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { escapeControls } from "../../../src/cli/terminal/escapeControls.ts"
import { RunRecord } from "../../../src/harness/claim/RunRecord.ts"
import { differences, keepRun, makeRunFolder, readRun } from "../../../src/harness/run/RunFolder.ts"
import { runReport } from "../../../src/harness/run/RunReport.ts"
import { mutateJson, MUTATIONS, MUTATIONS_TIMEOUT, tryAll } from "../../support/mutations.ts"
import { made } from "../madeRun.ts"

const inDirectory = <A, E>(use: (directory: string) => Effect.Effect<A, E, FileSystem.FileSystem>) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped()).pipe(
    Effect.flatMap(use),
    Effect.scoped,
    Effect.provide(NodeContext.layer)
  )

describe("a run's folder", () => {
  it.effect("holds the record, which is read by id, folder or file, and is the same", () =>
    inDirectory((directory) =>
      Effect.gen(function*() {
        const runs = join(directory, "new", "runs")
        const { id, path } = yield* makeRunFolder(runs)
        const kept = yield* keepRun(made, { id, path })
        assert.strictEqual(path, join(runs, id))
        assert.deepStrictEqual(kept, { ...made, host: { ...made.host, id, directory: path } })
        for (const name of [id, path, join(path, "run.json")]) {
          const read = yield* readRun(name, runs)
          assert.deepStrictEqual(read, kept)
          assert.deepStrictEqual(differences(read, kept), [])
        }
        assert.deepStrictEqual(differences(kept, { ...kept, seed: 2, mode: { ...kept.mode, why: "another" } }), [
          "seed"
        ])
        assert.include(runReport(kept), `again: ktstr replay ${path}`)
      })
    ))

  it.effect("holds a record of an earlier ktstr, which did not tell of dumps, clocks, nor why an operation failed", () =>
    inDirectory((directory) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const path = join(directory, "run.json")
        const { dump, ...host } = made.host
        const { clock, ...mode } = made.mode
        assert.isNotNull(clock)
        const operations = [{ op: 1, what: "stop", error: "ETIMEDOUT" }]
        yield* fs.writeFileString(path, JSON.stringify({ ...made, host, mode, operations }))
        const read = yield* readRun(path, directory)
        assert.deepStrictEqual(read, {
          ...made,
          mode: { ...mode, clock: null },
          operations: [{ ...operations[0], why: null }]
        })
        assert.isNull(dump)
      })
    ))

  it.effect("is never written a second time, and nothing that is no run is taken for one", () =>
    inDirectory((directory) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const folder = yield* makeRunFolder(directory)
        assert.notStrictEqual((yield* makeRunFolder(directory)).id, folder.id)
        yield* keepRun(made, folder)
        const again = yield* Effect.flip(keepRun({ ...made, seed: 9 }, folder))
        assert.strictEqual(again._tag, "RunFolderError")
        assert.strictEqual((yield* readRun(folder.id, directory)).seed, made.seed)
        const why = (text: string) =>
          Effect.gen(function*() {
            yield* fs.writeFileString(join(directory, "x.json"), text)
            return (yield* Effect.flip(readRun(join(directory, "x.json"), directory))).why
          })
        assert.match(yield* why("{"), /^not JSON: /)
        assert.match(yield* why("[".repeat(100_000)), /^not JSON: its values are nested more than 512 deep/)
        assert.strictEqual(yield* why(JSON.stringify({ schema: "ktstr.run/2" })), "it is of version ktstr.run/2")
        assert.match(yield* why(JSON.stringify({ schema: "ktstr.run/1", test: 7 })), /^not a run: /)
        const absent = yield* Effect.flip(readRun("20261128T210000-ffffffff", directory))
        assert.match(absent.message, /ffffffff\/run.json: /)
      })
    ))

  it.effect("has no half of a file that could not be put there", () =>
    inDirectory((directory) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const folder = yield* makeRunFolder(directory)
        yield* fs.makeDirectory(join(folder.path, "failure.json"))
        const failed = yield* Effect.flip(keepRun(made, folder, [Buffer.from("{}")]))
        assert.match(failed.message, /; name a directory that you can write, with free space$/)
        assert.deepStrictEqual(yield* fs.readDirectory(folder.path), ["failure.json"])
      })
    ))

  it.effect("is refused where its record has a name that would be a path, or a member that would not be done", () =>
    inDirectory((directory) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const path = join(directory, "run.json")
        const refused = (scenario: object) =>
          Effect.gen(function*() {
            const record = { ...made, scenario: { ...made.scenario, ...scenario } }
            yield* fs.writeFileString(path, JSON.stringify(record))
            return (yield* Effect.flip(readRun(path, directory))).why
          })
        const program = { program: "/bin/true" }
        for (const name of ["../../x", "/etc/x", "..", "a/b"]) {
          assert.match(yield* refused({ payloads: { [name]: program } }), /^not a run: .*payloads/)
          assert.match(yield* refused({ groups: { [name]: {} } }), /^not a run: .*groups/)
        }
        assert.match(yield* refused({ payloadz: { p: program } }), /^not a run: scenario.payloadz: is unexpected/)
        const cut = { payloads: { p: { ...program, args: ["a\0b"] } } }
        assert.match(yield* refused(cut), /^not a run: scenario.payloads.p.args.0: expected an argument without a NUL$/)
      })
    ))

  it.effect(
    `is refused in a line, or shown, whatever ${MUTATIONS} mutations of its record say`,
    () =>
      inDirectory((directory) =>
        Effect.gen(function*() {
          const path = join(directory, "run.json")
          const golden = JSON.stringify(
            Schema.encodeSync(RunRecord)({
              ...made,
              scenario: { ...made.scenario, payloads: { p: { program: "/bin/true", args: ["a"], group: "a" } } },
              payloads: { p: { status: 0, killed: false, log: ["\u001b[2J"] } },
              operations: [{ op: 1, what: "stop", error: "ETIMEDOUT", why: null }],
              kernelLog: ["a line"]
            })
          )
          const run = yield* Effect.runtime<FileSystem.FileSystem>()
          const read = yield* Effect.promise(() =>
            tryAll(async (pick) => {
              writeFileSync(path, mutateJson(golden, pick))
              const read = await Runtime.runPromise(run)(Effect.either(readRun(path, directory)))
              const shown = escapeControls(Either.isLeft(read) ? read.left.message : runReport(read.right))
              // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
              assert.notMatch(shown, /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
              assert.notProperty({}, "polluted")
              return Either.isRight(read)
            })
          )
          assert.isAbove(read, MUTATIONS / 20, "enough of them are runs")
        })
      ),
    MUTATIONS_TIMEOUT
  )
})
