import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { complaints, ktstr, place, until } from "../../support/cli.ts"
import { kernelImage } from "../../support/kernels.ts"

const WRONG = new URL("../../support/wrongQemu.mjs", import.meta.url).pathname

/** A directory with a QEMU that is wrong in this way. */
const wrongQemu = (way: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(tmpdir(), "ktstr-wrong-"))
      const script = `#!/bin/sh\nexec "${process.execPath}" "${WRONG}" "${way}" "$@"\n`
      writeFileSync(join(directory, "qemu-system-x86_64"), script, { mode: 0o755 })
      return directory
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  )

const BOOT = String.raw`cannot boot \S+/vmlinuz: `
const FREEZE = "the guest cannot be frozen: "
const LAYOUT = `${FREEZE}QEMU's info mtree -f: memory layout at byte \\d+: expected`
const NO_KERNEL = String.raw`memory of \S+/vmlinuz: no running x86-64 or arm64 Linux kernel in it; `
const UNSURE =
  "the guest did not stop within 10 s: QEMU's monitor has not confirmed it; is the host overloaded\\? try again$"
const SILENT =
  `the guest did not report ready within 5 s .* "hello from .*u001b\\]0;PWNED.*u0007 the console"; raise --timeout`

/** Each way, with how the line begins that says it. */
const ways: ReadonlyArray<readonly [way: string, line: string, ...args: ReadonlyArray<string>]> = [
  ["says nothing", `${BOOT}QEMU did not answer within 30 s; is the host overloaded`],
  ["is stopped at once", "not done within 1 s; raise --timeout, or leave it out$", "--timeout", "1"],
  ["does not answer a stop", UNSURE],
  ["is stopped when it is to stop", UNSURE],
  ["answers another question", UNSURE],
  ["never stops", UNSURE],
  ["says nothing of its guest", SILENT, "--timeout", "5"],
  ["is stopped before its script ends", SILENT, "--timeout", "5"],
  ["reports a status that no shell has", SILENT, "--timeout", "5"],
  ["reports without an end", SILENT, "--timeout", "5"],
  ["ends at once", `${BOOT}QEMU ended with 0; does QEMU know this setting\\?$`],
  ["ends with a complaint", String.raw`${BOOT}\\x1b\]0;PWNED\\x07 bad; does QEMU know this setting\?$`],
  ["is killed at once", `${BOOT}QEMU ended with SIGKILL; `],
  ["closes its monitor", `${BOOT}QEMU's monitor, qmp_capabilities: closed: .*; is the QEMU on the PATH 7.2 or newer`],
  ["speaks garbage", String.raw`${BOOT}QEMU's monitor, .*: not a QMP message: \\x00.\{\{\{nonsense\\x1b\[31m; `],
  [
    "greets as another server",
    `${BOOT}QEMU's monitor, .*: not a QMP message: RFB 003.008; is the QEMU on the PATH 7.2 or newer`
  ],
  ["speaks a line without an end", `${BOOT}QEMU's monitor, .*: closed: a message without an end; `],
  ["speaks JSON of 8 million brackets", `${BOOT}QEMU's monitor, .*: closed: a message without an end; `],
  ["refuses all commands", String.raw`${BOOT}QEMU's monitor, qmp_capabilities: refused: not \\x1b\[31m today; `],
  ["leaves a child behind", `${BOOT}QEMU ended with SIGKILL; `],
  ["tells 100,000 events first", NO_KERNEL],
  ["complains without an end", NO_KERNEL],
  ["cuts off its memory", NO_KERNEL],
  ["ends before its script does", "the guest has ended \\(status 0\\); "],
  ["is killed before its script ends", "the guest has ended \\(SIGKILL\\); "],
  ["closes its monitor when it is to stop", `${FREEZE}QEMU's monitor, stop: closed: `],
  ["speaks garbage when it is to stop", `${FREEZE}QEMU's monitor, stop: closed: not a QMP message: `],
  ["refuses to stop", String.raw`${FREEZE}QEMU's monitor, stop: refused: no \\x1b\[31m way; boot it again$`],
  ["ends when it is to stop", "the guest has ended \\(status 3\\); "],
  ["is killed when it is to stop", "the guest has ended \\(SIGKILL\\); "],
  ["answers a thousand times", NO_KERNEL],
  ["has a state that is none", `${FREEZE}QEMU's monitor, query-status: unreadable: `],
  ["a layout without memory", LAYOUT],
  [
    "a layout that is a number",
    `${FREEZE}QEMU's monitor, human-monitor-command: unreadable: Expected string, actual 42`
  ],
  ["a layout that is prose", LAYOUT],
  ["a layout of 60,000 others' ranges", `${FREEZE}QEMU's monitor, .*: closed: a message without an end; `],
  ["a layout that overlaps", LAYOUT],
  ["a layout beyond the memory", LAYOUT],
  ["does not go on", NO_KERNEL],
  ["ends when it is to go on", NO_KERNEL],
  ["is good", NO_KERNEL]
]

// most of them wait
describe.concurrent("a QEMU that is wrong: one line says how, exit code 1, and nothing is left behind", () => {
  for (const [way, line, ...args] of ways) {
    it.live(way, () =>
      Effect.gen(function*() {
        const directory = yield* wrongQemu(way)
        const { cwd, env, leftovers, mark } = yield* place
        const PATH = `${directory}:${process.env["PATH"]}`
        const words = ["--kernel", yield* kernelImage("6.12"), "--memory-mib", "128", "--cmdline", mark, ...args]
        const ran = yield* ktstr(["dump", "--engine", "qemu", ...words], { cwd, env: { ...env, PATH } })
        const [said, ...more] = complaints(ran)
        assert.match(said, new RegExp(`^ktstr: ${line}`), said)
        assert.deepStrictEqual([ran.code, ran.stdout, more], [1, "", []])
        yield* Effect.promise(() => until("everything is gone", () => leftovers().length === 0, 20))
      }).pipe(Effect.scoped), 120_000)
  }
})
