import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { buildIdOf } from "../../../src/core/image/BuildId.ts"
import { parseElf } from "../../../src/core/image/Elf.ts"
import { run } from "../samples.ts"

const readelfSays = (path: string) => /Build ID: ([0-9a-f]+)/.exec(run("readelf", ["-n", path]).toString())?.[1]

describe("buildIdOf", () => {
  it("is what readelf says, of every program at hand", () => {
    const programs = [process.execPath, "/bin/ls", "/usr/bin/qemu-system-x86_64", "/lib/x86_64-linux-gnu/libc.so.6"]
    for (const path of programs) {
      const said = readelfSays(path)
      assert.strictEqual(buildIdOf(parseElf(readFileSync(path), path)), said, path)
    }
    assert.isTrue(programs.some((path) => readelfSays(path) !== undefined))
  })

  it("is undefined in a file without one, and in damaged notes", () => {
    const directory = mkdtempSync(join(tmpdir(), "ktstr-test-build-id-"))
    try {
      const path = join(directory, "ls")
      copyFileSync("/bin/ls", path)
      execFileSync("objcopy", ["--remove-section=.note.gnu.build-id", path])
      assert.isUndefined(readelfSays(path))
      assert.isUndefined(buildIdOf(parseElf(readFileSync(path), path)))
    } finally {
      rmSync(directory, { recursive: true })
    }
    const bytes = new Uint8Array(readFileSync("/bin/ls"))
    const elf = parseElf(bytes, "ls")
    for (const note of elf.segments.filter((segment) => segment.type === 4)) {
      bytes.fill(0xff, note.offset, note.offset + note.filesz)
    }
    assert.isUndefined(buildIdOf(elf))
  })
})
