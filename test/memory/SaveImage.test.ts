import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { saveImage } from "../../src/memory/SaveImage.ts"

const bytes = Uint8Array.from({ length: 8192 }, (_, at) => at < 4096 ? 0 : at)
const memory = new GuestMemory([{ start: 0, bytes }])

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-save-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

it.scopedLive("saveImage takes a file's place as a whole, and leaves what is not a file as it is", () =>
  Effect.gen(function*() {
    const directory = yield* temporary
    const [file, pipe] = ["file", "pipe"].map((name) => join(directory, name))
    writeFileSync(file, "was here")
    execFileSync("mkfifo", [pipe])
    yield* saveImage(memory, file)
    assert.deepStrictEqual(Uint8Array.from(readFileSync(file)), bytes)
    for (const path of [pipe, directory]) {
      const error = yield* Effect.flip(saveImage(memory, path))
      assert.include(error.message, `${path}: not a regular file`)
    }
    assert.isTrue(lstatSync(pipe).isFIFO())
    assert.deepStrictEqual(readdirSync(directory).toSorted(), ["file", "pipe"])
  }))
