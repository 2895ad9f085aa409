import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const command = new URL("../../dist/bin/ktstr.cjs", import.meta.url).pathname

describe("the command's compiled code", () => {
  const run = (cache: string) =>
    execFileSync(process.execPath, [command, "--version"], {
      encoding: "utf8",
      env: { PATH: process.env["PATH"], HOME: cache, XDG_CACHE_HOME: cache }
    })

  it("is kept by the first run, used by the next, and replaced when it does not fit", () => {
    const cache = mkdtempSync(join(tmpdir(), "ktstr-launch-"))
    try {
      const version = run(cache)
      assert.match(version, /^\d+\.\d+\.\d+\s*$/)
      const directory = join(cache, "ktstr", "code")
      const names = readdirSync(directory)
      assert.strictEqual(names.length, 1)
      const file = join(directory, names[0])
      assert.strictEqual(statSync(directory).mode & 0o777, 0o700)
      const { ino, size } = statSync(file)
      assert.isAbove(size, 100_000)

      assert.strictEqual(run(cache), version)
      assert.strictEqual(statSync(file).ino, ino, "the second run wrote nothing")

      writeFileSync(file, readFileSync(file).subarray(0, 1000))
      assert.strictEqual(run(cache), version)
      assert.isAbove(statSync(file).size, 100_000, "what V8 refused was replaced")
      assert.deepStrictEqual(readdirSync(directory), names)
    } finally {
      rmSync(cache, { recursive: true })
    }
  })

  it("is not needed: without a place for it the command runs", () => {
    assert.match(run("/proc/nowhere"), /^\d+\.\d+\.\d+\s*$/)
  })
})
