import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { runToEnd } from "../../../src/core/process/Subprocess.ts"

it.live("a program that prints without end is killed, whichever stream it prints to", () =>
  Effect.gen(function*() {
    for (const script of ["yes", "yes >&2"]) {
      const error = yield* Effect.flip(runToEnd("sh", ["-c", script], "use another one"))
      assert.strictEqual(error.message, "sh: it printed more than 64 MiB; use another one")
    }
    const { code, stderr, stdout } = yield* runToEnd("sh", ["-c", "echo out; echo err >&2; exit 3"], "")
    assert.deepStrictEqual([code, stdout, stderr], [3, "out\n", "err\n"])
  }).pipe(Effect.provide(NodeContext.layer)), 60_000)
