import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ktstr } from "../../support/cli.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"
import { needsScx, scx } from "../../support/scx.ts"

/** A directory for runs that the test leaves nothing of. */
const runsDirectory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-runs-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

describe("ktstr run", () => {
  beforeEach(needsScx)
  beforeEach(needsExactQemu)

  it.live(
    "passes where the scheduler ends as --expect says, twice the same, and fails where it does not",
    () =>
      Effect.gen(function*() {
        const { key } = yield* scx
        const directory = yield* runsDirectory
        // a program that ends before it attaches
        const of = ["--kernel", key, "--scheduler", "/bin/false", "--mode", "exact", "--runs-dir", directory]
        const passed = yield* ktstr(["run", ...of, "--expect", "died", "--repeat", "2"])
        assert.strictEqual(passed.code, 0, passed.stderr)
        assert.match(
          passed.stdout,
          /^2 of 2 runs passed, 1 different schedule; 1 of 1 repeated ones are the same as their first$/m
        )
        assert.lengthOf(readdirSync(directory), 2)
        const failed = yield* ktstr(["run", ...of, "--expect", "stalled"])
        assert.strictEqual(failed.code, 1, failed.stderr)
        assert.match(failed.stdout, /^FAIL {2}smoke \[exact, seed 1\]/)
        assert.lengthOf(readdirSync(directory), 3)
      }).pipe(Effect.scoped),
    400_000
  )
})
