import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { guestImage } from "../support/image.ts"

const root = new URL("../../", import.meta.url).pathname

/** A directory inside the package, where `import "ktstr"` means the built package itself. */
const inPackage = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(root, "test", "readme-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

describe("README", () => {
  it.scoped("its library example compiles as it stands, and runs", () =>
    Effect.gen(function*() {
      const directory = yield* inPackage
      const example = /```ts\n(.*?)```/s.exec(readFileSync(join(root, "README.md"), "utf8"))![1]
      writeFileSync(join(directory, "example.ts"), example)
      const flags =
        "--module nodenext --target es2022 --strict --exactOptionalPropertyTypes --skipLibCheck --types node"
      execFileSync(
        join(root, "node_modules/typescript/bin/tsc"),
        [...flags.split(" "), join(directory, "example.ts")],
        {
          stdio: "pipe"
        }
      )
      const run =
        `import("${directory}/example.js").then(async ({ main }) => console.log(JSON.stringify(await main("${yield* guestImage}"))))`
      const names: unknown = JSON.parse(execFileSync(process.execPath, ["-e", run], { encoding: "utf8" }))
      assert.isArray(names)
      assert.includeMembers(names as Array<string>, ["hash_4096", "percpu_array", "types.bss"])
    }), 180_000)
})

describe("subpaths", () => {
  const loadsKoffi = (subpath: string): boolean => {
    const program =
      `import("${subpath}").then(() => console.log(require("fs").readFileSync("/proc/self/maps", "utf8").includes("koffi")))`
    return execFileSync(process.execPath, ["-e", program], { cwd: root, encoding: "utf8" }).trim() === "true"
  }
  for (const subpath of ["ktstr", "ktstr/core", "ktstr/btf", "ktstr/memory", "ktstr/kvm", "ktstr/bpf", "ktstr/live"]) {
    it(`${subpath} loads no koffi`, () => assert.isFalse(loadsKoffi(subpath)))
  }
  for (const subpath of ["ktstr/native", "ktstr/kvm/native"]) {
    it(`${subpath} loads it`, () => assert.isTrue(loadsKoffi(subpath)))
  }
})
