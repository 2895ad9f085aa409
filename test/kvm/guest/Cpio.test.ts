import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { cpioArchive, type CpioEntry } from "../../../src/kvm/guest/Cpio.ts"

const cpio = (archive: Uint8Array, ...options: ReadonlyArray<string>) =>
  execFileSync("busybox", ["cpio", ...options], { input: archive, encoding: "utf8", stdio: ["pipe", "pipe", "ignore"] })

const withDirectory = <A>(use: (directory: string) => A): A => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-cpio-"))
  try {
    return use(directory)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const sample: ReadonlyArray<CpioEntry> = [
  { kind: "directory", path: "dev", mode: 0o755 },
  { kind: "character device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
  { kind: "directory", path: "d", mode: 0o750 },
  { kind: "file", path: "d/a file, ünïcode", mode: 0o640, bytes: new TextEncoder().encode("hello") },
  { kind: "symlink", path: "link", target: "d/a file, ünïcode" },
  { kind: "file", path: "empty", mode: 0o755, bytes: new Uint8Array(0) }
]

describe("cpioArchive", () => {
  it("lists as busybox's cpio expects: types, modes, owners, sizes of files, times", () => {
    const lines = cpio(cpioArchive(sample), "-itv").trimEnd().split("\n").map((line) => line.replace(/\s+/g, " "))
    assert.deepStrictEqual(lines, [
      "drwxr-xr-x 0/0 0 1970-01-01 00:00:00 dev",
      "crw------- 0/0 0 1970-01-01 00:00:00 dev/console",
      "drwxr-x--- 0/0 0 1970-01-01 00:00:00 d",
      "-rw-r----- 0/0 5 1970-01-01 00:00:00 d/a file, ünïcode",
      "lrwxrwxrwx 0/0 0 1970-01-01 00:00:00 link -> d/a file, ünïcode",
      "-rwxr-xr-x 0/0 0 1970-01-01 00:00:00 empty"
    ])
  })

  it("gives the same bytes for the same entries, in whole words", () => {
    const archive = cpioArchive(sample)
    assert.deepStrictEqual(archive, cpioArchive(sample))
    assert.strictEqual(archive.length % 4, 0)
  })

  it("unpacks to the contents that went in, whatever their length modulo 4", () => {
    const contents = FastCheck.array(FastCheck.uint8Array({ maxLength: 70 }), { minLength: 1, maxLength: 12 })
    FastCheck.assert(
      FastCheck.property(contents, (files) =>
        withDirectory((directory) => {
          const named = files.map((bytes, index) => ({ path: `f${"x".repeat(index)}`, bytes }))
          execFileSync("busybox", ["cpio", "-idm"], {
            cwd: directory,
            input: cpioArchive([
              ...named.map(({ bytes, path }) => ({ kind: "file" as const, path, mode: 0o600, bytes })),
              { kind: "symlink", path: "link", target: "f" }
            ]),
            stdio: ["pipe", "ignore", "ignore"]
          })
          assert.strictEqual(readlinkSync(join(directory, "link")), "f")
          for (const { bytes, path } of named) {
            assert.deepStrictEqual(new Uint8Array(readFileSync(join(directory, path))), bytes)
            assert.strictEqual(statSync(join(directory, path)).mode & 0o777, 0o600)
          }
        })),
      { numRuns: 25 }
    )
  })
})
