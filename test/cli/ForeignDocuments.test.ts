import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { complaints, ktstr, place } from "../support/cli.ts"

/** That each command says one line, and ends with 1. */
const refuses = (commands: ReadonlyArray<readonly [args: ReadonlyArray<string>, line: RegExp]>, cwd: string) =>
  Effect.forEach(commands, ([args, line]) =>
    Effect.map(ktstr(args, { cwd }), (ran) => {
      const [first, ...more] = complaints(ran)
      assert.match(first, line)
      assert.deepStrictEqual([ran.code, more], [1, []], ran.stderr)
    }), { discard: true })

describe("a document that another program wrote", () => {
  it.scopedLive("is refused where its values are nested too deep", () =>
    Effect.gen(function*() {
      const { cwd } = yield* place
      const deep = join(cwd, "deep.json")
      writeFileSync(deep, `{"a":${"[".repeat(200_000)}${"]".repeat(200_000)}}`)
      const nested = /: its values are nested more than 512 deep, which no document of ours is/
      yield* refuses([
        [["show", deep], nested],
        [["diff", deep, deep], nested],
        [["sched", "diff", deep, deep], nested],
        [["replay", deep], nested],
        [["run", "--scenario", deep, "--kernel", "debian:6.12-cloud"], nested]
      ], cwd)
    }), 120_000)

  it.scopedLive(
    "is refused where it is a device or too large, and left where nobody writes the pipe",
    () =>
      Effect.gen(function*() {
        const { cwd } = yield* place
        const folder = join(cwd, "run")
        mkdirSync(folder)
        symlinkSync("/dev/zero", join(folder, "run.json"))
        const sparse = join(cwd, "sparse.json")
        writeFileSync(sparse, "")
        truncateSync(sparse, 2 ** 30)
        const pipe = join(cwd, "pipe.json")
        execFileSync("mkfifo", [pipe])
        const late = /^ktstr: not done within 2 s; /
        const device = /^ktstr: (cannot read|the run's folder) .*: it is a device and not a file; /
        yield* refuses([
          [["show", "/dev/zero"], device],
          [["replay", folder], device],
          [["run", "--scenario", "/dev/zero", "--kernel", "debian:6.12-cloud"], device],
          [["vm", "run", "--exec-file", "/dev/zero", "--kernel", "debian:6.12-cloud"], device],
          [["show", sparse], /: it is larger than 512 MiB; /],
          [["show", pipe, "--timeout", "2"], late],
          [["replay", pipe, "--timeout", "2"], late]
        ], cwd)
      }),
    120_000
  )
})
