import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ktstr } from "../../support/cli.ts"

const root = new URL("../../../", import.meta.url).pathname

/** A project with the vitest of this checkout, and a test file with that text. */
const project = (text: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(tmpdir(), "ktstr-list-"))
      writeFileSync(join(directory, "package.json"), JSON.stringify({ type: "module" }))
      symlinkSync(join(root, "node_modules"), join(directory, "node_modules"))
      writeFileSync(join(directory, "some.test.js"), text)
      return directory
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  )

describe("ktstr list", () => {
  it.effect("has a line for each kernel with each topology with each seed, and boots nothing", () =>
    Effect.gen(function*() {
      const axes = [
        "--kernel",
        "6.12",
        "--kernel",
        "debian:7.3-cloud",
        "--topology",
        "tiny-2llc",
        "--topology",
        "1,1,1,1"
      ]
      const { code, stdout } = yield* ktstr(["list", ...axes, "--seed", "4", "--seeds", "2"])
      assert.strictEqual(code, 0)
      assert.deepStrictEqual(stdout.trimEnd().split("\n"), [
        "smoke: 6.12, tiny-2llc, seed 4",
        "smoke: 6.12, tiny-2llc, seed 5",
        "smoke: 6.12, 1,1,1,1, seed 4",
        "smoke: 6.12, 1,1,1,1, seed 5",
        "smoke: debian:7.3-cloud, tiny-2llc, seed 4",
        "smoke: debian:7.3-cloud, tiny-2llc, seed 5",
        "smoke: debian:7.3-cloud, 1,1,1,1, seed 4",
        "smoke: debian:7.3-cloud, 1,1,1,1, seed 5"
      ])
      const one = yield* ktstr(["list", "--json"], { env: { KTSTR_KERNEL: "6.12" } })
      assert.deepStrictEqual(JSON.parse(one.stdout), {
        scenario: "smoke",
        kernel: "6.12",
        topology: "1,1,2,1",
        seed: 1
      })
    }))

  it.effect("has the tests of a file, one for each seed, and runs none", () =>
    Effect.gen(function*() {
      const helper = JSON.stringify(join(root, "dist/harness/vitest/index.js"))
      const cwd = yield* project(`
        import { describe } from "vitest"
        import { it } from ${helper}
        it.ktstr("two schedules", { kernel: "none", seeds: 2 })
        console.log("[]")
        describe("a suite", () => it("another", () => { throw new Error("it ran") }))
      `)
      const { code, stderr, stdout } = yield* ktstr(["list", "some.test.js"], { cwd })
      assert.strictEqual(code, 0, stderr)
      assert.deepStrictEqual(stdout.trimEnd().split("\n"), [
        "some.test.js: two schedules [seed 1]",
        "some.test.js: two schedules [seed 2]",
        "some.test.js: a suite > another"
      ])
      const absent = yield* ktstr(["list", "absent.test.js"], { cwd })
      assert.match(absent.stderr, /^ktstr: cannot read the tests of absent.test.js: vitest finds no test in it; /)
      assert.strictEqual(absent.code, 1)
    }).pipe(Effect.scoped))

  it.effect("says why a test file cannot be loaded", () =>
    Effect.gen(function*() {
      const cwd = yield* project("throw new Error('broken')")
      const { code, stderr } = yield* ktstr(["list", "some.test.js"], { cwd })
      assert.match(stderr, /^ktstr: cannot read the tests of some.test.js: Error: broken; /, stderr)
      assert.strictEqual(code, 1)
    }).pipe(Effect.scoped))

  it.effect("refuses a topology that is neither a name nor numbers", () =>
    Effect.gen(function*() {
      const { code, stderr } = yield* ktstr(["list", "--kernel", "6.12", "--topology", "tiny"])
      assert.match(stderr, /--topology: not a topology: "tiny"; give NODES,LLCS,CORES,THREADS, or one of tiny-1llc, /)
      assert.strictEqual(code, 2)
    }))
})
