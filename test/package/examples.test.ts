import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { guestImage } from "../support/image.ts"

const root = new URL("../../", import.meta.url).pathname
const FLAGS =
  "--ignoreConfig --rootDir examples --module nodenext --target es2022 --strict --exactOptionalPropertyTypes --skipLibCheck --types node"

/** Compiled examples, in a directory inside the package, where `import "ktstr"` means the built package itself. */
const compiled = (name: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(root, "test", "example-"))
      const tsc = join(root, "node_modules/typescript7/bin/tsc")
      const program = join(root, "examples", `${name}.ts`)
      execFileSync(process.execPath, [tsc, ...FLAGS.split(" "), "--outDir", directory, program], {
        cwd: root,
        stdio: "pipe"
      })
      return directory
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  ).pipe(Effect.map((directory) => join(directory, `${name}.js`)))

describe("examples", () => {
  it.scoped("offline-image lists the maps of an image, and prints a map's entries", () =>
    Effect.gen(function*() {
      const image = yield* guestImage
      const program = yield* compiled("offline-image")
      const run = (...args: ReadonlyArray<string>) =>
        execFileSync(process.execPath, [program, ...args], { encoding: "utf8" }).trim().split("\n")
      const [kernel, ...maps] = run(image)
      assert.match(kernel, /^kernel \d+\.\d+/)
      assert.includeMembers(maps, ["hash hash_4096", "percpu_array percpu_array"])
      const entries = run(image, "hash_4096").slice(1).map((line) => JSON.parse(line) as object)
      assert.strictEqual(entries.length, 3)
      for (const entry of entries) assert.hasAllKeys(entry, ["key", "value"])
    }), 300_000)
})
