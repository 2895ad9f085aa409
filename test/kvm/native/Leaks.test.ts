import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { promisify } from "node:util"
import { bundle, shared } from "./support/harness.ts"

/** Emulating KVM runs such guests too. */
const absent = !existsSync("/dev/kvm")

const ROUNDS = 200
/**
 * Mappings that V8's heap, malloc and koffi (three a thread, of which these rounds make two) may add: about 40 were seen.
 * A guest that leaves one mapping behind leaves 200.
 */
const KEPT = 100

it.scopedLive.skipIf(absent)(
  `${ROUNDS} guests are booted, frozen and destroyed, and the process has what it had before`,
  () =>
    Effect.gen(function*() {
      const program = yield* bundle("rounds", yield* shared)
      // V8 with a young generation that does not grow: its pages are mappings too
      const options = ["--expose-gc", "--max-semi-space-size=1", program, `${ROUNDS}`, "20"]
      const { stdout } = yield* Effect.promise(() => promisify(execFile)(process.execPath, options))
      const { after, before } = JSON.parse(stdout)
      assert.deepStrictEqual({ ...after, mappings: 0 }, { ...before, mappings: 0 })
      assert.strictEqual(after.guests, 0)
      assert.isAtMost(after.mappings, before.mappings + KEPT)
    }),
  180_000
)
