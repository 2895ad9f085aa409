import * as FileSystem from "@effect/platform/FileSystem"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { createRequire } from "node:module"
import { dirname, join, relative, resolve } from "node:path"
import { HostLacks } from "../../core/Errors.ts"
import { runToEnd } from "../../core/process/Subprocess.ts"
import { stage } from "../../core/Progress.ts"
import { ASKED, Asked, AskedLine } from "../../harness/vitest/AskedByCommand.ts"
import { FileUnreadable } from "../terminal/exit.ts"

/** A test of a file, with the names of the suites that it is in. */
export interface CollectedTest {
  readonly file: string
  readonly test: string
}

/** The choices of files on a command line: scenarios are JSON, all others are tests. */
export const filesByKind = (files: ReadonlyArray<string>) => {
  const [tests, scenarios] = Arr.partition(files, (file) => file.endsWith(".json"))
  return { tests, scenarios }
}

/** The document that `vitest list --json=FILE` writes. */
const Listed = Schema.parseJson(Schema.Array(Schema.Struct({ name: Schema.String, file: Schema.String })))

/** The program of the vitest that the project in the working directory has: its test files belong to that one. */
const vitestOfProject = Effect.try({
  try: () => join(dirname(createRequire(resolve("package.json")).resolve("vitest/package.json")), "vitest.mjs"),
  catch: () =>
    new HostLacks({ what: "vitest", why: "test files need it, and this project has none", hint: "npm install vitest" })
})

/** Where a project's vitest does not find what it is asked for. */
const unreadable = (file: string, why: string) =>
  new FileUnreadable({ what: `the tests of ${file}`, why, hint: "give test files of this project" })

/** The tests of files, in the order of vitest, which loads the files and runs none of their tests. */
export const collectTests = (files: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const vitest = yield* vitestOfProject
    const fs = yield* FileSystem.FileSystem
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

/** The document of vitest's JSON reporter, as far as it is read. */
const Reported = Schema.parseJson(Schema.Struct({
  testResults: Schema.Array(Schema.Struct({
    name: Schema.String,
    message: Schema.optional(Schema.NullOr(Schema.String)),
    assertionResults: Schema.Array(Schema.Struct({
      fullName: Schema.String,
      status: Schema.String,
      failureMessages: Schema.optional(Schema.NullOr(Schema.Array(Schema.String)))
    }))
  }))
}))

/** A test of a file that failed without a kept run, or was skipped, and why. */
interface OtherTest extends CollectedTest {
  readonly why: string
}

/** The outcome of test files: the folders of the runs that they kept, and what else failed, was skipped, or passed. */
interface TestedFiles {
  readonly runs: ReadonlyArray<string>
  readonly failed: ReadonlyArray<OtherTest>
  readonly skipped: ReadonlyArray<string>
  readonly passed: number
}

const firstLine = (text: string): string => text.split("\n").find((line) => line.trim() !== "") ?? "it does not say why"

/** A failure's message with its stack as far as the test's own line. */
const briefly = (text: string): string => {
  const lines = text.split("\n")
  const stack = lines.findIndex((line) => line.startsWith("    at "))
  return lines.slice(0, stack < 0 ? lines.length : stack + 1).join("\n")
}

/** Run test files by the vitest of the project, each of their `it.ktstr` on all that the command line asks for. */
export const runTestFiles = (files: ReadonlyArray<string>, asked: Omit<Asked, "log">) =>
  Effect.gen(function*() {
    const vitest = yield* vitestOfProject
    const fs = yield* FileSystem.FileSystem
    const directory = yield* Effect.orDie(fs.makeTempDirectoryScoped({ prefix: "ktstr-tests-" }))
    const [log, out] = [join(directory, "log"), join(directory, "tests.json")]
    yield* Effect.orDie(fs.writeFileString(log, ""))
    const paths = files.map((file) => resolve(file))
    const { code, stderr } = yield* runToEnd(
      process.execPath,
      [vitest, "run", ...paths, "--reporter=json", `--outputFile=${out}`],
      "check Node's installation",
      { environment: { NO_COLOR: "1", [ASKED]: yield* Effect.orDie(Schema.encode(Asked)({ ...asked, log })) } }
    ).pipe(stage(`vitest run ${files.join(" ")}`, "harness.vitest", { files }))
    const { testResults } = yield* Effect.flatMap(fs.readFileString(out), Schema.decode(Reported)).pipe(
      Effect.mapError(() => unreadable(files.join(", "), `vitest ended with status ${code}: ${firstLine(stderr)}`))
    )
    const absent = files.find((_, index) => !testResults.some(({ name }) => name === paths[index]))
    if (absent !== undefined) return yield* unreadable(absent, "vitest finds no test in it")
    const text = yield* Effect.orDie(fs.readFileString(log))
    const lines = yield* Effect.orDie(
      Effect.forEach(text.split("\n").filter((line) => line !== ""), (line) => Schema.decode(AskedLine)(line))
    )
    const runs = lines.flatMap((line) => "run" in line ? [line.run] : [])
    const tests = testResults.flatMap(({ assertionResults, message, name }) => {
      const file = relative(process.cwd(), name)
      return assertionResults.length === 0
        ? [{ file, test: "the file", status: "failed", why: message ?? "it has no test" }]
        : assertionResults.map(({ failureMessages, fullName, status }) => (
          { file, test: fullName, status, why: (failureMessages ?? []).map(briefly).join("\n") }
        ))
    })
    const tested: TestedFiles = {
      runs,
      failed: tests.filter(({ status, why }) => status === "failed" && !runs.some((run) => why.includes(run))),
      skipped: lines.flatMap((line) => "skipped" in line ? [`${line.skipped}: ${line.why}`] : []),
      passed: tests.filter(({ status }) => status === "passed").length
    }
    return tested
  }).pipe(Effect.scoped)
