import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { ktstr } from "../../support/cli.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"

const SHORT = { groups: { spin: { workers: { perCpu: 1 }, work: { type: "spin" } } } }
const FILES = {
  "package.json": { type: "module" },
  "tiny.json": { version: 1, name: "tiny", ...SHORT, steps: [{ name: "run", hold: "200 millis" }] },
  "runs.test.js": `import { cgroup, it, scenario, step, work } from "ktstr/vitest"
const groups = { spin: cgroup({ workers: { perCpu: 1 }, work: work.spin() }) }
it.ktstr("carries", { kernel: "debian:none", scenario: scenario("short", { groups, steps: () => [step("run", { hold: "200 millis" })] }) })
`,
  "fails.test.js": `import { it } from "vitest"
it("is no run", () => { throw new Error("as it should") })
`
}

/** A project of its own, with the packages of this checkout, or without vitest. */
const project = (packages: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(tmpdir(), "ktstr-project-"))
      mkdirSync(join(directory, "node_modules"))
      for (const name of packages) {
        const from = name === "ktstr" ? "." : join("node_modules", name)
        symlinkSync(resolve(from), join(directory, "node_modules", name))
      }
      for (const [name, text] of Object.entries(FILES)) {
        writeFileSync(join(directory, name), typeof text === "string" ? text : JSON.stringify(text))
      }
      return directory
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  )

describe("ktstr run of files", () => {
  beforeEach(needsExactQemu)

  it.live(
    "runs scenarios and the tests of files on the kernel of the command line, in one table",
    () =>
      Effect.gen(function*() {
        const cwd = yield* project(["ktstr", "vitest", "effect", "@effect", "koffi"])
        const of = ["--kernel", "debian:7.3-cloud", "--mode", "exact"]
        const passed = yield* ktstr(["run", "runs.test.js", "tiny.json", ...of], { cwd })
        assert.strictEqual(passed.code, 0, passed.stderr)
        assert.match(passed.stdout, /^pass +carries +debian:7\.3-cloud +1,1,2,1 +1 /m)
        assert.match(passed.stdout, /^pass +tiny +debian:7\.3-cloud/m)
        assert.match(passed.stdout, /^2 of 2 runs passed/m)
        const failed = yield* ktstr(["run", "fails.test.js", ...of], { cwd })
        assert.strictEqual(failed.code, 1, failed.stderr)
        assert.match(failed.stderr, /^FAIL {2}fails\.test\.js > is no run: Error: as it should$/m)
        const wrong = yield* ktstr(["run", "runs.test.js", "--scheduler", "/bin/true", ...of], { cwd })
        assert.strictEqual(wrong.code, 2, wrong.stderr)
        assert.match(wrong.stderr, /--scheduler goes with scenarios, and runs\.test\.js is a test file/)
      }).pipe(Effect.scoped),
    600_000
  )

  it.live("says where a project has no vitest", () =>
    Effect.gen(function*() {
      const cwd = yield* project([])
      const { code, stderr } = yield* ktstr(["run", "fails.test.js", "--kernel", "debian:7.3-cloud"], { cwd })
      assert.strictEqual(code, 3, stderr)
      assert.match(stderr, /vitest: test files need it, and this project has none; npm install vitest/)
    }).pipe(Effect.scoped), 60_000)
})
