import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ChildProcess } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { FailureDocument } from "../../../src/monitor/index.ts"
import { ktstr, place, processesWith, until } from "../../support/cli.ts"
import { kernelImage } from "../../support/kernels.ts"

/** Random points of each kind, of which there are four; KTSTR_KILL_POINTS=100 has that many. */
const POINTS = Number(process.env["KTSTR_KILL_POINTS"] ?? 1)

const decode = Schema.decodeUnknown(Schema.parseJson(FailureDocument))

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

/** Kill one of a run's processes at a point of it; the file that is there then is a whole one, and nothing else is. */
const killAt = (victim: "ktstr" | "QEMU", since: "failure" | "start", millis: number) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage("6.12")
    const { cwd, env, leftovers, mark } = yield* place
    const file = join(cwd, "dump.json")
    const guest = ["--kernel", kernel, "--memory-mib", "192", "--cmdline", mark, "--exec", "echo it fails; exit 7"]
    const { code } = yield* ktstr(["vm", "run", ...guest, "--on-failure", file], {
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
    const there = () => leftovers().filter((name) => name !== "dump.json")
    yield* Effect.promise(() => until("everything else is gone", () => there().length === 0, 5))
    if (leftovers().length > 0) assert.strictEqual((yield* decode(readFileSync(file, "utf8"))).failure.at.length, 24)
    return code
  }).pipe(Effect.scoped)

describe("ktstr vm run --on-failure", () => {
  for (const victim of ["ktstr", "QEMU"] as const) {
    for (const [since, most] of [["failure", 200], ["start", 8000]] as const) {
      it.live(
        `leaves a whole dump or none, and nothing else, when ${victim} is killed after the ${since}`,
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
})
