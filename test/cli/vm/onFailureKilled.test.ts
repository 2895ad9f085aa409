import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type ChildProcess, execFile } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { promisify } from "node:util"
import { FailureDocument, Moment } from "../../../src/monitor/index.ts"
import { KTSTR, ktstr, place, processesWith, until } from "../../support/cli.ts"
import { kernelImage } from "../../support/kernels.ts"

/** Random points of each kind, of which there are five; KTSTR_KILL_POINTS=100 has that many. */
const POINTS = Number(process.env["KTSTR_KILL_POINTS"] ?? 1)

const decodeFailure = Schema.decodeUnknown(Schema.parseJson(FailureDocument))
const decodeMoment = Schema.decodeUnknown(Schema.parseJson(Moment))

/** The process that is the VM: `setpriv` and a shell are it before. */
const qemuOf = (mark: string): number | undefined => {
  const [found] = processesWith(mark).map((words) => Number(words.replace("process ", ""))).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("qemu-system")
    } catch {
      return false // it has ended
    }
  })
  return found
}

/** Wait for the guest's failure to be noticed, or for its QEMU to run, then for some milliseconds. */
const moment = async (child: ChildProcess, mark: string, since: "failure" | "start", millis: number) => {
  let said = ""
  child.stderr?.on("data", (bytes: Buffer) => said += bytes.toString())
  const come = () =>
    child.exitCode !== null || (since === "failure" ? said.includes("failure: ") : qemuOf(mark) !== undefined)
  await until(since, come, 120)
  await setTimeout(millis)
}

/** A guest that changes a variable, which is watched, and then fails. */
const SCRIPT = "for n in 1 2 3; do echo $n > /proc/sys/kernel/panic; done; echo it fails; exit 7"
const runOf = (kernel: string, directory: string, mark: string): ReadonlyArray<string> => [
  ..."vm run --memory-mib 192 --snapshot write=panic_timeout".split(" "),
  "--kernel",
  kernel,
  "--cmdline",
  mark,
  "--exec",
  SCRIPT,
  "--on-failure",
  join(directory, "dump.json"),
  "--snapshots",
  join(directory, "moments")
]

/** Every file in the directory is one of the guest's, and whole. */
const assertWhole = (directory: string) =>
  Effect.gen(function*() {
    const names = readdirSync(directory, { recursive: true, encoding: "utf8" })
    for (const name of names.filter((name) => name !== "moments")) {
      const text = readFileSync(join(directory, name), "utf8")
      if (name === "dump.json") assert.strictEqual((yield* decodeFailure(text)).failure.at.length, 24)
      else {
        const { name: named } = yield* decodeMoment(text)
        assert.strictEqual(name, `moments/${named}.json`)
        assert.match(named, /^panic_timeout_00\d$/)
      }
    }
    return names.length
  })

/** Kill one of a run's processes at a point of it; the files that are there then are whole ones, and nothing else is. */
const killAt = (victim: "ktstr" | "QEMU", since: "failure" | "start", millis: number) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage("6.12")
    const { cwd, env, leftovers, mark } = yield* place
    const out = join(cwd, "out")
    mkdirSync(out)
    const { code } = yield* ktstr(runOf(kernel, out, mark), {
      cwd,
      env,
      meanwhile: async (child) => {
        await moment(child, mark, since, millis)
        const pid = victim === "ktstr" ? child.pid : qemuOf(mark)
        if (pid !== undefined && child.exitCode === null) process.kill(pid, "SIGKILL")
      }
    })
    // QEMU may have had nothing more to do; its end is the run's, or a failure to be dumped
    assert.include(victim === "ktstr" ? [137, 7] : [1, 7], code)
    yield* Effect.promise(() => until("everything else is gone", () => leftovers().join() === "out", 5))
    yield* assertWhole(out)
    return code
  }).pipe(Effect.scoped)

/** Run with so much room for its files. */
const fillAt = (kib: number) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage("6.12")
    const { cwd, env, leftovers, mark } = yield* place
    for (const name of ["small", "copy"]) mkdirSync(join(cwd, name))
    const script = `mount -t tmpfs -o size=${kib}k tmpfs small && {
      "$@"; echo "@code $?"; find small -name '.*' -o -name '*.part'; cp -r small/. copy; }`
    const command = ["sh", process.execPath, KTSTR, ...runOf(kernel, "small", mark)]
    const { stderr, stdout } = yield* Effect.promise(() =>
      promisify(execFile)("unshare", ["-rm", "sh", "-c", script, ...command], { cwd, env: { ...process.env, ...env } })
    )
    const [, printed, code] = /^([^]*)@code (\d+)\n$/.exec(stdout) ?? assert.fail(`${kib} KiB: ${stdout}${stderr}`)
    assert.strictEqual(printed, "it fails\n")
    const count = yield* assertWhole(join(cwd, "copy"))
    const isFull = /^ktstr: cannot write small\/\S+\.json: ENOSPC: .*; give a writable path/m.test(stderr)
    assert.strictEqual(code, isFull ? "1" : "7", stderr)
    assert.isAtLeast(count, isFull ? 1 : 2)
    assert.deepStrictEqual(leftovers().sort(), ["copy", "small"])
    return isFull
  }).pipe(Effect.scoped)

describe("ktstr vm run --on-failure --snapshots", () => {
  for (const victim of ["ktstr", "QEMU"] as const) {
    for (const [since, most] of [["failure", 200], ["start", 8000]] as const) {
      it.live(
        `leaves whole files or none, and nothing else, when ${victim} is killed after the ${since}`,
        () =>
          Effect.gen(function*() {
            let killed = 0
            for (let point = 0; point < POINTS; point++) {
              const code = yield* killAt(victim, since, Math.random() * most)
              killed += code === 137 ? 1 : 0
            }
            // a guest takes longer to end once it has failed; from its start on it may have ended
            if (victim === "ktstr" && since === "failure") assert.isAbove(killed, 0)
          }),
        60_000 + POINTS * 120_000
      )
    }
  }

  it.live(
    "leaves whole files or none, and nothing else, when the disk is full",
    () =>
      Effect.gen(function*() {
        let full = 0
        for (let point = 0; point < POINTS; point++) {
          // of 166 KiB all files may find room, of 16 none does
          full += (yield* fillAt(16 + (point === 0 ? 0 : Math.floor(Math.random() * 150))))
            ? 1
            : 0
        }
        assert.isAbove(full, 0)
      }),
    60_000 + POINTS * 120_000
  )
})
