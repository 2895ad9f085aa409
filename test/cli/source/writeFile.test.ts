import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile, execFileSync, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { chmodSync, lstatSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { promisify } from "node:util"
import { checkWritable, writeBinary, writeFile } from "../../../src/cli/source/writeFile.ts"
import { printable } from "../../../src/cli/terminal/Printable.ts"
import { Host } from "../../core/kernelEntries.ts"
import { scratch } from "../../support/guest.ts"

const bytes = printable

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
  }).pipe(Effect.provide(Host)))

it.scoped("what could not be written is known before, and the look leaves nothing", () =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const path = `${directory}/dump.json`
    for (const bad of [`${directory}/none/dump.json`, directory, `${directory}/file/dump.json`]) {
      writeFileSync(`${directory}/file`, "")
      const [before, after] = [yield* Effect.flip(checkWritable(bad)), yield* Effect.flip(writeFile(bad, []))]
      assert.deepStrictEqual(before, after)
    }
    yield* checkWritable(path)
    assert.deepStrictEqual(readdirSync(directory), ["file"])
    writeFileSync(path, "old")
    execFileSync("mkfifo", [`${directory}/pipe`]) // nobody reads it, so opening it would wait
    for (const good of [path, `${directory}/pipe`, "/dev/null", "/dev/stderr"]) yield* checkWritable(good)
    assert.strictEqual(readFileSync(path, "utf8"), "old")
    assert.deepStrictEqual(readdirSync(directory).toSorted(), ["dump.json", "file", "pipe"])
  }).pipe(Effect.provide(Host)))

it.scoped("only the file itself is replaced: no link is followed, no neighbour lost", () =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const path = `${directory}/dump.json`
    writeFileSync(`${directory}/precious`, "precious")
    symlinkSync("precious", `${path}.part`)
    symlinkSync("precious", path)
    yield* writeFile(path, [bytes("new")])
    assert.strictEqual(readFileSync(path, "utf8"), "new")
    assert.isTrue(lstatSync(path).isFile())
    assert.strictEqual(readFileSync(`${directory}/precious`, "utf8"), "precious")
    assert.isTrue(lstatSync(`${path}.part`).isSymbolicLink())
    chmodSync(path, 0o600)
    yield* writeFile(path, [bytes("newer")])
    assert.strictEqual(statSync(path).mode & 0o777, 0o600)
    assert.deepStrictEqual(readdirSync(directory).toSorted(), ["dump.json", "dump.json.part", "precious"])
  }).pipe(Effect.provide(Host)))

it.scoped("several at once on one file all succeed, and one of them is there", () =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const path = `${directory}/dump.json`
    const texts = Array.from({ length: 16 }, (_, run) => `${run} `.repeat(1000))
    yield* Effect.forEach(texts, (text) => writeFile(path, Array.from({ length: 10 }, () => bytes(text))), {
      concurrency: "unbounded"
    })
    assert.include(texts.map((text) => text.repeat(10)), readFileSync(path, "utf8"))
    assert.deepStrictEqual(readdirSync(directory), ["dump.json"])
  }).pipe(Effect.provide(Host)))

it.scoped("a pipe is written to, not replaced", () =>
  Effect.gen(function*() {
    const path = `${yield* scratch}/pipe`
    execFileSync("mkfifo", [path])
    const read = promisify(execFile)("cat", [path])
    yield* writeFile(path, [bytes("one "), bytes("two")])
    assert.strictEqual((yield* Effect.promise(() => read)).stdout, "one two")
    assert.isTrue(statSync(path).isFIFO())
  }).pipe(Effect.provide(Host)))

it.scoped("zeros are holes in a file, and zeros in a pipe; a terminal gets neither", () =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const pieces = [{ zeros: 2 ** 20 }, Buffer.from("middle"), { zeros: 100_000 }]
    const whole = Buffer.concat([Buffer.alloc(2 ** 20), Buffer.from("middle"), Buffer.alloc(100_000)])
    yield* writeBinary(`${directory}/core`, pieces)
    assert.isTrue(readFileSync(`${directory}/core`).equals(whole))
    assert.isBelow(statSync(`${directory}/core`).blocks * 512, 2 ** 16)
    execFileSync("mkfifo", [`${directory}/pipe`])
    const read = promisify(execFile)("md5sum", [`${directory}/pipe`])
    yield* writeBinary(`${directory}/pipe`, pieces)
    assert.match(
      (yield* Effect.promise(() => read)).stdout,
      new RegExp(`^${createHash("md5").update(whole).digest("hex")} `)
    )
    // script(1) gives its command a terminal
    const script = spawn("script", ["-qec", "tty; cat", "/dev/null"], { stdio: ["pipe", "pipe", "inherit"] })
    const said = new Promise<string>((resolve) => script.stdout.once("data", (text) => resolve(String(text).trim())))
    const terminal = yield* Effect.promise(() => said)
    const error = yield* Effect.flip(writeBinary(terminal, pieces))
    script.stdin.end()
    assert.match(error.message, /^cannot write \/dev\/pts\/\d+: it is a terminal, and this is not text; /)
    yield* Effect.promise(() => new Promise((resolve) => script.once("close", resolve)))
  }).pipe(Effect.provide(Host)))
