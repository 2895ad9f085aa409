import { afterAll, assert, beforeAll, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { randomUUID } from "node:crypto"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ktstr } from "../../support/cli.ts"
import { needsExactQemu } from "../../support/exactQemu.ts"
import { needsScx, scx } from "../../support/scx.ts"

/** A payload that does harm, and what comes of it: the command's exit code, and lines of its report. */
interface Harm {
  readonly args: ReadonlyArray<string>
  /** What the next step does. */
  readonly also?: { readonly op: "wait" | "kill"; readonly payload: "harm"; readonly within?: string }
  readonly code: 0 | 1
  readonly said: ReadonlyArray<RegExp>
}

const HARMS: Readonly<Record<string, Harm>> = {
  "kills workers": {
    args: ["kill", "timer"],
    code: 1,
    said: [
      /^ {2}FAIL {2}no worker ended before it was stopped: worker \d of timer ended with signal 9 at \d\.\d{3} s and 1 more$/m
    ]
  },
  "kills the scheduler": {
    args: ["kill", "scx_simple"],
    code: 1,
    said: [/^ {2}FAIL {2}scx_simple left by itself: 0\.\d s after it attached; its process ended with signal 9,/m]
  },
  "kills the agent, to which the kernel gives no such signal": {
    args: ["init"],
    code: 0,
    said: [/^ {2}ok {4}harm ended with status 0$/m, /^ {2}ok {4}no record is missing$/m]
  },
  "kills the process that watches over the agent": {
    args: ["kill", "init"],
    code: 0,
    said: [/^ {2}ok {4}harm ended with status 0$/m, /^ {2}ok {4}no record is missing$/m]
  },
  "restarts the machine": {
    args: ["reset"],
    code: 1,
    said: [
      /^ {2}FAIL {2}the guest ended before its plan did: at the \w+ operation \(\d+ of \d+\): the guest has ended/m
    ]
  },
  "leaves the agent no CPU": {
    args: ["starve"],
    code: 1,
    said: [
      /^ {2}FAIL {2}the agent, a task of FIFO 99, had no CPU: no CPU ran it for \d\d\.\d s of the guest, at the \w+ operation \(/m
    ]
  },
  "does not end, and is waited for": {
    args: ["endless"],
    also: { op: "wait", payload: "harm", within: "200 millis" },
    code: 1,
    said: [/^ {2}FAIL {2}wait of harm in after: ETIMEDOUT: it did not end within 0\.2 s; it sleeps \(S\)$/m]
  },
  "does not end, and is ended": {
    args: ["endless"],
    also: { op: "kill", payload: "harm" },
    code: 1,
    said: [
      /^ {2}FAIL {2}kill of harm in after: ETIMEDOUT: it did not end when it was asked to, and was killed within 2\.0 s$/m
    ]
  }
}

/** Processes that have this in their environment. */
const processesWith = (mark: string): ReadonlyArray<string> =>
  readdirSync("/proc").filter((pid) => /^\d+$/.test(pid)).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, "latin1").includes(mark)
    } catch {
      return false // it has ended
    }
  })

describe("a run whose payload", () => {
  let directory: string
  let program: string
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "ktstr-harm-"))
    program = join(directory, "harm")
    const source = new URL("./hostile.c", import.meta.url).pathname
    execFileSync("gcc", ["-O1", "-Wall", "-Werror", source, "-o", program])
  })
  afterAll(() => rmSync(directory, { recursive: true, force: true }))
  beforeEach(needsScx)
  beforeEach(needsExactQemu)

  for (const [what, { also, args, code, said }] of Object.entries(HARMS)) {
    it.live(what, () =>
      Effect.gen(function*() {
        const { key, scheduler } = yield* scx
        const file = join(directory, "scenario.json")
        const group = (workers: number, work: object) => ({ workers, work })
        writeFileSync(
          file,
          JSON.stringify({
            version: 1,
            name: "harm",
            groups: {
              timer: group(2, { type: "timer", interval: "10 millis" }),
              spin: group(2, { type: "spin" })
            },
            payloads: { harm: { program, args } },
            steps: [
              { name: "before", hold: "100 millis" },
              { name: "harm", do: [{ op: "run", payload: "harm" }], hold: "300 millis" },
              ...(also === undefined ? [] : [{ name: "after", do: [also], hold: "100 millis" }])
            ]
          })
        )
        const mark = randomUUID()
        const of = ["--kernel", key, "--scheduler", scheduler("scx_simple"), "--mode", "exact", "--scenario", file]
        const ran = yield* ktstr(["run", ...of, "--runs-dir", join(directory, "runs")], { env: { KTSTR_MARK: mark } })
        assert.strictEqual(ran.code, code, ran.stdout + ran.stderr)
        for (const one of said) assert.match(ran.stdout, one)
        assert.deepStrictEqual(processesWith(mark), [])
      }), 400_000)
  }
})
