import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { complaints, ktstr, place } from "../support/cli.ts"

describe("a document that another program wrote", () => {
  it.scopedLive("is refused in one line where its values are nested too deep, or it is a device without an end", () =>
    Effect.gen(function*() {
      const { cwd } = yield* place
      const deep = join(cwd, "deep.json")
      writeFileSync(deep, `{"a":${"[".repeat(200_000)}${"]".repeat(200_000)}}`)
      const nested = /: its values are nested more than 512 deep, which no document of ours is/
      const refused = [
        [["show", deep], nested],
        [["diff", deep, deep], nested],
        [["sched", "diff", deep, deep], nested],
        [["replay", deep], nested],
        [["run", "--scenario", deep, "--kernel", "debian:6.12-cloud"], nested],
        [["show", "/dev/zero"], /^ktstr: cannot read \/dev\/zero: it is a device, not a file; give a file that vm run/]
      ] as const
      yield* Effect.forEach(refused, ([args, line]) =>
        Effect.map(ktstr(args, { cwd }), (ran) => {
          const [first, ...more] = complaints(ran)
          assert.match(first, line)
          assert.deepStrictEqual([ran.code, more], [1, []], ran.stderr)
        }), { discard: true })
    }))
})
