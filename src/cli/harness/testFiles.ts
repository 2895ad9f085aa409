import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { createRequire } from "node:module"
import { dirname, join, relative, resolve } from "node:path"
import { HostLacks } from "../../core/Errors.ts"
import { runToEnd } from "../../core/process/Subprocess.ts"
import { FileUnreadable } from "../terminal/exit.ts"

/** A test of a file, with the names of the suites that it is in. */
export interface CollectedTest {
  readonly file: string
  readonly test: string
}

/** The document that `vitest list --json=FILE` writes. */
const Listed = Schema.parseJson(Schema.Array(Schema.Struct({ name: Schema.String, file: Schema.String })))

/** The program of the vitest that the project in the working directory has: its test files belong to that one. */
const vitestOfProject = Effect.try({
  try: () => join(dirname(createRequire(resolve("package.json")).resolve("vitest/package.json")), "vitest.mjs"),
  catch: () =>
    new HostLacks({ what: "vitest", why: "test files need it, and this project has none", hint: "npm install vitest" })
})

/** The tests of files, in the order of vitest, which loads the files and runs none of their tests. */
export const collectTests = (files: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const vitest = yield* vitestOfProject
    const fs = yield* FileSystem.FileSystem
    const unreadable = (file: string, why: string) =>
      new FileUnreadable({ what: `the tests of ${file}`, why, hint: "give test files of this project" })
    const paths = files.map((file) => resolve(file))
    const out = join(yield* Effect.orDie(fs.makeTempDirectoryScoped({ prefix: "ktstr-list-" })), "tests.json")
    const { code, stderr } = yield* runToEnd(
      process.execPath,
      [vitest, "list", ...paths, `--json=${out}`],
      "check Node's installation",
      { environment: { NO_COLOR: "1" } }
    )
    if (code !== 0) {
      return yield* unreadable(
        files.join(", "),
        stderr.split("\n").find((line) => line.trim() !== "") ?? `status ${code}`
      )
    }
    const listed = yield* Effect.flatMap(fs.readFileString(out), Schema.decode(Listed)).pipe(
      Effect.mapError(({ message }) => unreadable(files.join(", "), `vitest's list: ${message}`))
    )
    const absent = files.find((_, index) => !listed.some(({ file }) => file === paths[index]))
    if (absent !== undefined) return yield* unreadable(absent, "vitest finds no test in it")
    return listed.filter(({ file }) => paths.includes(file)).map(({ file, name }): CollectedTest => (
      { file: relative(process.cwd(), file), test: name }
    ))
  }).pipe(Effect.scoped)
