import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { existsSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { complaints, ktstr, place, until } from "../../support/cli.ts"
import { kernelImage } from "../../support/kernels.ts"

const SECONDS = 150

/** `ktstr vm run --on-failure` in a place that must be as it was when the command has ended; its dump, if there is one. */
const run = (...args: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const kernel = yield* kernelImage("6.12")
    const { cwd, env, leftovers, mark } = yield* place
    const file = join(cwd, "dump.json")
    const guest = ["--kernel", kernel, "--memory-mib", "192", "--cmdline", mark, "--on-failure", file]
    const ran = yield* ktstr(["vm", "run", ...guest, ...args], { cwd, env })
    const written = leftovers().includes("dump.json")
    const shown = written ? yield* ktstr(["show", file], { cwd, env }) : undefined
    const paged = written ? yield* ktstr(["show", file, "--html", join(cwd, "page.html")], { cwd, env }) : undefined
    const page = paged?.code === 0 ? readFileSync(join(cwd, "page.html"), "utf8") : undefined
    const made = join(cwd, "made.html")
    const ofRun = existsSync(made) ? readFileSync(made, "utf8") : undefined
    const core = join(cwd, "made.core")
    const ofCore = existsSync(core)
      ? yield* ktstr(["sched", "show", "--image", core, "--json"], { cwd, env })
      : undefined
    for (const name of ["page.html", "made.html", "made.core"]) rmSync(join(cwd, name), { force: true })
    const dump = written ? JSON.parse(readFileSync(file, "utf8")) : undefined
    rmSync(file, { force: true })
    yield* Effect.promise(() => until("everything is gone", () => leftovers().length === 0, 5))
    return { ran, dump, page, ofRun, ofCore, shown }
  }).pipe(Effect.scoped)

/** The complaints but what is said of the dump. */
const others = (ran: Parameters<typeof complaints>[0]) =>
  complaints(ran).filter((line) => !/^ {2}(failure: |.*dump\.json: written)/.test(line))

describe("ktstr vm run --on-failure", () => {
  it.live(
    "writes what a guest was like whose script failed, and ends with its status; of one that did not, nothing",
    () =>
      Effect.gen(function*() {
        const failed = yield* run("--exec", "echo first; printf 'last'; exit 7")
        assert.deepStrictEqual([failed.ran.stdout, failed.ran.code, others(failed.ran)], ["first\nlast", 7, []])
        const { console, failure, samples, schema, sched, vcpus } = failed.dump
        assert.deepInclude(failure, { kind: "script", seenIn: "report", status: 7 })
        assert.deepStrictEqual([schema, console.slice(-2), vcpus.length], ["single", ["first", "last"], 1])
        assert.deepInclude(samples[0], { consistency: "racing", scheduler: null, seconds: null })
        assert.include(failed.page, "Copyright (c) 2022 Leon Sorokin")
        assert.include(
          failed.page,
          `<tbody>\n<tr><td class="n" data-value="${(Date.parse(samples[0].at) - Date.parse(failure.at)) / 1000}">`
        )
        // the init waits behind its script
        assert.deepInclude(sched.tasks.find(({ pid }: { pid: number }) => pid === 1), { comm: "init", kthread: false })
        assert.match(failed.shown?.stdout ?? "", /^script {2}the script ended with exit status 7\n/)

        const done = yield* run("--exec", "echo fine")
        assert.deepStrictEqual([done.ran.stdout, done.ran.code, done.dump], ["fine\n", 0, undefined])
      }),
    SECONDS * 1000
  )

  it.live(
    "notices what the kernel's log got immediately before the commands ended with 0",
    () =>
      Effect.gen(function*() {
        const { dump, ran } = yield* run("--exec", "echo fine; echo 'BUG: last words' >/dev/kmsg")
        assert.deepStrictEqual([ran.stdout, ran.code, others(ran)], ["fine\n", 0, []])
        assert.deepInclude(dump.failure, { kind: "oops", seenIn: "memory", text: "BUG: last words" })
        assert.strictEqual(dump.schema, "single")
        // the kernel itself may print more before the freeze: the console, or a clock source that it has changed to
        assert.include(dump.log.lines.map(({ text }: { text: string }) => text), "BUG: last words")
      }),
    SECONDS * 1000
  )

  it.live(
    "with --monitor takes a broken rule for a failure, with --html makes its page at once, with --core its core of that moment",
    () =>
      Effect.gen(function*() {
        const crowd = "for i in 1 2 3 4 5 6 7 8; do taskset 1 sh -c 'while :; do :; done' & done; sleep 20"
        const files = ["--html", "made.html", "--core", "made.core"]
        const { dump, ofCore, ofRun, page, ran, shown } = yield* run(
          "--cpus",
          "2",
          "--monitor",
          ...files,
          "--exec",
          crowd
        )
        assert.deepStrictEqual([ran.stdout, ran.code], ["", 0])
        assert.deepInclude(dump.failure, { kind: "rule", seenIn: "memory" })
        assert.match(dump.failure.text, /^imbalance: \d+(\.\d+)? ×, more than 4$/)
        assert.match(shown?.stdout ?? "", /^rule {2}imbalance: .*\n.*\nkernel .*\n\nCPUs stood at\n/)
        assert.match(ran.stderr, /^ {2}made\.html: written$/m)
        assert.strictEqual(ofRun, page)
        assert.match(ran.stderr, /^ {2}made\.core: 192 MiB of memory, registers of 2 CPUs, VMCOREINFO of 6\.12\./m)
        const { runQueues, time } = JSON.parse(ofCore?.stdout ?? "").sched
        assert.deepStrictEqual([time, runQueues], [dump.sched.time, dump.sched.runQueues])
      }),
    SECONDS * 1000
  )

  it.scopedLive("says at once that its file cannot be written, before it looks for the kernel", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      for (const option of [["--monitor"], ["--html", "x"], ["--core", "x"]]) {
        const alone = yield* ktstr(["vm", "run", "--kernel", "/none", "--exec", "true", ...option], { cwd, env })
        assert.deepStrictEqual([alone.code, alone.stdout], [2, ""])
        assert.match(alone.stderr, /^ktstr: --\w+ is about a guest's failure: give --on-failure FILE with it /)
      }
      for (const option of ["--html", "--core"]) {
        const args = ["vm", "run", "--kernel", "/none", "--exec", "true", "--on-failure", "x", option, "./x"]
        const twice = yield* ktstr(args, { cwd, env })
        assert.deepStrictEqual([twice.code, twice.stdout], [2, ""])
        assert.match(twice.stderr, /^ktstr: --on-failure, --html and --core each want a file of their own /)
      }
      for (const files of [["none/x"], ["x", "--html", "none/x"], ["x", "--core", "none/x"]]) {
        const args = ["vm", "run", "--kernel", "/none", "--exec", "true", "--on-failure", ...files]
        const ran = yield* ktstr(args, { cwd, env })
        assert.deepStrictEqual([ran.code, ran.stdout], [1, ""])
        assert.match(ran.stderr, /^ktstr: cannot write none\/x: ENOENT: no such file or directory; [^\n]*\n$/)
      }
    }))

  it.live(
    "writes what a guest was like that panicked, with the kernel's own words and its trace of calls",
    () =>
      Effect.gen(function*() {
        const { dump, ran, shown } = yield* run("--exec", "echo c > /proc/sysrq-trigger; sleep 60")
        assert.strictEqual(ran.code, 1)
        assert.strictEqual(dump.schema, "single")
        assert.strictEqual(dump.failure.kind, "panic")
        assert.match(dump.failure.text, /Kernel panic - not syncing: sysrq triggered crash/)
        assert.isTrue(dump.log.lines.some(({ text }: { text: string }) => text.startsWith("sysrq: Trigger a crash")))
        assert.match(shown?.stdout ?? "", /^panic {2}.*sysrq triggered crash\n/)
        const trace: ReadonlyArray<string> = dump.log.lines.flatMap(({ text }: { text: string }) =>
          /^ (?:\? )?(\S+\+0x\w+)\/0x\w+$/.exec(text)?.[1] ?? []
        )
        const [{ callers }]: [{ callers: ReadonlyArray<string> }] = dump.vcpus
        const isPanic = (name: string) => name.startsWith("panic+") // it has gone on since
        const below = callers.slice(callers.findIndex(isPanic) + 1)
        assert.isAbove(below.length, 3, callers.join(" < "))
        assert.deepStrictEqual([callers.filter(isPanic).length, trace.findIndex(isPanic)], [1, 0])
        assert.deepStrictEqual(below, trace.slice(1, 1 + below.length))
      }),
    SECONDS * 1000
  )
})
