import * as NodeContext from "@effect/platform-node/NodeContext"
import * as FileSystem from "@effect/platform/FileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { join } from "node:path"
import { differences, keepRun, readRun } from "../../../src/harness/run/RunFolder.ts"
import { runReport } from "../../../src/harness/run/RunReport.ts"
import { made } from "../madeRun.ts"

const run = { ...made, host: { ...made.host, id: "20261128T210000-0123abcd" } }

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
        const kept = yield* keepRun(run, join(directory, "new", "runs"))
        const folder = kept.host.directory!
        for (const name of [run.host.id, folder, join(folder, "run.json")]) {
          const read = yield* readRun(name, join(directory, "new", "runs"))
          assert.deepStrictEqual(read, kept)
          assert.deepStrictEqual(differences(read, kept), [])
        }
        assert.deepStrictEqual(differences(kept, { ...kept, seed: 2, mode: { ...kept.mode, why: "another" } }), [
          "seed"
        ])
        assert.include(runReport(kept), `again: ktstr replay ${folder}`)
      })
    ))

  it.effect("is never written a second time, and nothing that is no run is taken for one", () =>
    inDirectory((directory) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        yield* keepRun(run, directory)
        const again = yield* Effect.flip(keepRun({ ...run, seed: 9 }, directory))
        assert.strictEqual(again._tag, "RunFolderError")
        assert.strictEqual((yield* readRun(run.host.id, directory)).seed, run.seed)
        const why = (text: string) =>
          Effect.gen(function*() {
            yield* fs.writeFileString(join(directory, "x.json"), text)
            return (yield* Effect.flip(readRun(join(directory, "x.json"), directory))).why
          })
        assert.strictEqual(yield* why("{"), "not JSON")
        assert.strictEqual(yield* why(JSON.stringify({ schema: "ktstr.run/2" })), "it is of version ktstr.run/2")
        assert.match(yield* why(JSON.stringify({ schema: "ktstr.run/1", test: 7 })), /^not a run: /)
        const absent = yield* Effect.flip(readRun("20261128T210000-ffffffff", directory))
        assert.match(absent.message, /ffffffff\/run.json: /)
      })
    ))
})
