import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { ChildProcess } from "node:child_process"
import { execFile } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { promisify } from "node:util"
import { unreadable } from "../../../src/core/Reason.ts"
import { degradedFailure, sealFailure } from "../../../src/monitor/index.ts"
import { KTSTR, ktstr, place } from "../../support/cli.ts"

/** Random points of each kind; KTSTR_CUT_POINTS=100 has that many. */
const POINTS = Number(process.env["KTSTR_CUT_POINTS"] ?? 4)

/** A dump whose page has several MiB. */
const largeDump = (path: string): void => {
  const lines = Array.from({ length: 20_000 }, (_, i) => `${i} ${"x".repeat(300)}`)
  const failure = { kind: "script", text: "made", seenIn: "report", at: new Date().toISOString() } as const
  const source = { kind: "vm", engine: "qemu", kernel: "made" } as const
  const whole = JSON.parse(
    Buffer.concat([...sealFailure(degradedFailure(failure, source, unreadable("made"), []))]).toString()
  )
  writeFileSync(path, JSON.stringify({ ...whole, console: lines }))
}

/** Kill a process at a random moment after it has made the file, without a name, that it writes to. */
const killWhileWriting = (directory: string, millis: number) => async (child: ChildProcess) => {
  const writes = () => {
    try {
      return readdirSync(`/proc/${child.pid}/fd`).some((fd) =>
        readlinkSync(`/proc/${child.pid}/fd/${fd}`).startsWith(`${directory}/`)
      )
    } catch {
      return false // the descriptor, or the process, is gone
    }
  }
  while (child.exitCode === null && !writes()) await setTimeout(1)
  await setTimeout(millis)
  child.kill("SIGKILL")
}

/** A page that is there is a whole one. */
const assertWhole = (path: string): void =>
  assert.match(readFileSync(path, "utf8").slice(-40), /<\/main><\/body><\/html>\n$/)

describe("a command that writes a file", () => {
  it.live("and is killed leaves it whole, or none, and nothing beside it", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      const dump = join(cwd, "dump.json")
      largeDump(dump)
      const directory = join(cwd, "out")
      mkdirSync(directory)
      const page = join(directory, "page.html")
      let killed = 0
      for (let point = 0; point < POINTS; point++) {
        const meanwhile = killWhileWriting(directory, Math.random() * 20)
        const { code } = yield* ktstr(["show", dump, "--html", page], { cwd, env, meanwhile })
        assert.include([0, 137], code)
        killed += code === 137 ? 1 : 0
        const there = readdirSync(directory)
        assert.include([[], ["page.html"]].map(String), String(there), `point ${point}`)
        if (there.length > 0) assertWhole(page)
      }
      assert.isAbove(killed, 0)
      assert.strictEqual((yield* ktstr(["show", dump, "--html", page], { cwd, env })).code, 0)
      assertWhole(page)
    }).pipe(Effect.scoped), 60_000 + POINTS * 20_000)

  it.live("and finds the disk full leaves what was there, and nothing beside it", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      const dump = join(cwd, "dump.json")
      largeDump(dump)
      mkdirSync(join(cwd, "small"))
      for (let point = 0; point < POINTS; point++) {
        const kib = 8 + Math.floor(Math.random() * 5000) // the page has 6 MiB
        const script = `mount -t tmpfs -o size=${kib}k tmpfs small && cd small && printf old >page.html && {
          "$1" "$2" show ../dump.json --html page.html; echo "@code $?"; ls -A; cat page.html; }`
        const { stderr, stdout } = yield* Effect.promise(() =>
          promisify(execFile)("unshare", ["-rm", "sh", "-c", script, "sh", process.execPath, KTSTR], {
            cwd,
            env: { ...process.env, ...env }
          })
        )
        assert.strictEqual(stdout, "@code 1\npage.html\nold", `${kib} KiB`)
        assert.match(stderr, /^ktstr: cannot write page\.html: ENOSPC: [^\n]*; give a writable path[^\n]*\n$/)
      }
    }).pipe(Effect.scoped), 60_000 + POINTS * 20_000)
})
