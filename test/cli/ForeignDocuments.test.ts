import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { complaints, ktstr, place } from "../support/cli.ts"

describe("a document that another program wrote", () => {
  it.scopedLive(
    "is refused in one line where its values are nested too deep, it is a device, or nobody writes it",
    () =>
      Effect.gen(function*() {
        const { cwd } = yield* place
        const deep = join(cwd, "deep.json")
        writeFileSync(deep, `{"a":${"[".repeat(200_000)}${"]".repeat(200_000)}}`)
        const folder = join(cwd, "run")
        mkdirSync(folder)
        symlinkSync("/dev/zero", join(folder, "run.json"))
        const sparse = join(cwd, "sparse.json")
        writeFileSync(sparse, "")
        truncateSync(sparse, 2 ** 30)
        const fifo = join(cwd, "fifo.json")
        execFileSync("mkfifo", [fifo])
        const late = /^ktstr: not done within 2 s; /
        const endless = /^ktstr: cannot read the sc\w+ \/dev\/zero: it is a device and not a file; give /
        const nested = /: its values are nested more than 512 deep, which no document of ours is/
        const refused = [
          [["show", deep], nested],
          [["diff", deep, deep], nested],
          [["sched", "diff", deep, deep], nested],
          [["replay", deep], nested],
          [["run", "--scenario", deep, "--kernel", "debian:6.12-cloud"], nested],
          [
            ["show", "/dev/zero"],
            /^ktstr: cannot read \/dev\/zero: it is a device and not a file; give a file that vm run/
          ],
          [["replay", folder], /run\.json: it is a device and not a file; /],
          [["run", "--scenario", "/dev/zero", "--kernel", "debian:6.12-cloud"], endless],
          [["vm", "run", "--exec-file", "/dev/zero", "--kernel", "debian:6.12-cloud"], endless],
          [["show", sparse], /: it is larger than 512 MiB; /],
          // nobody ever writes into it
          [["show", fifo, "--timeout", "2"], late],
          [["replay", fifo, "--timeout", "2"], late]
        ] as const
        yield* Effect.forEach(refused, ([args, line]) =>
          Effect.map(ktstr(args, { cwd }), (ran) => {
            const [first, ...more] = complaints(ran)
            assert.match(first, line)
            assert.deepStrictEqual([ran.code, more], [1, []], ran.stderr)
          }), { discard: true })
      }),
    120_000
  )
})
