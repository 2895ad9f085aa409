import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile, execFileSync } from "node:child_process"
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { promisify } from "node:util"
import { writeFile } from "../../../src/cli/source/writeFile.ts"
import { scratch } from "../../support/guest.ts"

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

it.scoped("a file is written whole, or is as it was", () =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const path = `${directory}/dump.json`
    yield* writeFile(path, [bytes("one "), bytes("two")])
    assert.strictEqual(readFileSync(path, "utf8"), "one two")
    writeFileSync(path, "old")
    yield* Effect.exit(writeFile(
      path,
      (function*() {
        yield bytes("new")
        throw new Error("the memory went away")
      })()
    ))
    assert.strictEqual(readFileSync(path, "utf8"), "old")
    assert.deepStrictEqual(readdirSync(directory), ["dump.json"])
    const error = yield* Effect.flip(writeFile(`${directory}/none/dump.json`, []))
    assert.match(error.message, /^cannot write .*\/none\/dump\.json: ENOENT: no such file or directory; /)
  }).pipe(Effect.provide(NodeContext.layer)))

it.scoped("a pipe is written to, not replaced", () =>
  Effect.gen(function*() {
    const path = `${yield* scratch}/pipe`
    execFileSync("mkfifo", [path])
    const read = promisify(execFile)("cat", [path])
    yield* writeFile(path, [bytes("one "), bytes("two")])
    assert.strictEqual((yield* Effect.promise(() => read)).stdout, "one two")
    assert.isTrue(statSync(path).isFIFO())
  }).pipe(Effect.provide(NodeContext.layer)))
