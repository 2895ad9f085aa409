import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { Moment } from "../../../src/monitor/index.ts"
import { complaints, ktstr, place } from "../../support/cli.ts"
import { kernelImage } from "../../support/kernels.ts"

const decode = Schema.decodeUnknown(Schema.parseJson(Moment))

describe("ktstr vm run --snapshot", () => {
  it.live(
    "writes a guest's state at points of the run and on a line, and what was in the way of one that was not taken",
    () =>
      Effect.gen(function*() {
        const kernel = yield* kernelImage("6.12")
        const { cwd, env } = yield* place
        const directory = join(cwd, "made", "moments")
        // the guest goes on when it was read, and ends before the series does
        const script = `sleep 1000000 & until grep -q sleep /proc/$!/comm; do :; done; echo "@pid $!"; sleep 3`
        const wanted = ["periodic=100/10000s", "line=^@pid \\d+$", "line=^never$"].flatMap((
          when
        ) => ["--snapshot", when])
        const guest = ["--kernel", kernel, "--memory-mib", "192", "--cpus", "2", "--exec", script]
        const ran = yield* ktstr(["vm", "run", ...guest, "--snapshots", directory, ...wanted], { cwd, env })
        assert.strictEqual(ran.code, 0)
        assert.match(ran.stdout, /^@pid \d+\n$/)
        const said = complaints(ran).filter((line) => line.includes("line_"))
        assert.match(said.join("\n"), /line_001\.json: written; the guest stood still for [\d.]+ ms/)
        assert.match(said.join("\n"), /line_002\.json: not taken: no line matched \/\^never\$\//)

        const names = readdirSync(directory).sort()
        const series = Array.from({ length: 64 }, (_, i) => `periodic_${String(i).padStart(3, "0")}.json`)
        assert.deepStrictEqual(names, ["line_001.json", ...series])
        const moments = yield* Effect.forEach(names, (name) => decode(readFileSync(join(directory, name), "utf8")))
        const [line, ...others] = moments
        assert.deepStrictEqual([line.name, line.cause, `${line.text}\n`], ["line_001", "line", ran.stdout])
        if ("kind" in line.reading || "kind" in line.reading.sched || "kind" in line.reading.sched.tasks) {
          return assert.fail("not read")
        }
        assert.deepInclude(line.reading.source, { kind: "vm", kernel })
        assert.strictEqual(line.reading.sched.tasks.find(({ pid }) => line.text === `@pid ${pid}`)?.comm, "sleep")
        for (const { cause, reading } of others) {
          assert.strictEqual(cause, "periodic")
          assert.match("kind" in reading ? reading.text : "", /^the guest has ended /)
        }

        const shown = yield* ktstr(["show", join(directory, "line_001.json")], { cwd, env })
        assert.strictEqual(shown.code, 0)
        assert.match(shown.stdout, /^line_001 {2}@pid \d+\n[^]*\ntasks\n[^]* sleep /)
        const why = yield* ktstr(["show", join(directory, "periodic_000.json")], { cwd, env })
        assert.match(why.stdout, /^periodic_000 {2}point 1 of 64\n.*\nnot read: unreadable: the guest has ended /)
      }).pipe(Effect.scoped),
    200_000
  )

  it.scopedLive("says what is wrong with its options before it looks for the kernel", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      const wrong = (...args: ReadonlyArray<string>) =>
        Effect.map(
          ktstr(["vm", "run", "--kernel", "/none", "--exec", "true", ...args], { cwd, env }),
          ({ code, stderr }) => {
            return `${code} ${stderr.split("\n", 1)[0]}`
          }
        )
      assert.match(yield* wrong("--snapshot", "line=x"), /^2 .*give both/)
      assert.match(yield* wrong("--snapshots", "."), /^2 .*give both/)
      assert.match(
        yield* wrong("--snapshots", ".", "--snapshot", "every=8"),
        /^2 .*every=8: give periodic=8\/60s, or line=REGEX/
      )
      assert.match(yield* wrong("--snapshots", ".", "--snapshot", "line=("), /^2 .*line=\(: not a regular expression/)
      assert.match(
        yield* wrong("--snapshots", "/dev/null/none", "--snapshot", "line=x"),
        /^1 .*cannot write \/dev\/null\/none: ENOTDIR: not a directory; give a writable path/
      )
    }), 60_000)
})
