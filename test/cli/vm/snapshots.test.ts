import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { Moment } from "../../../src/monitor/index.ts"
import { complaints, ktstr, place, until } from "../../support/cli.ts"
import { kernelImage } from "../../support/kernels.ts"

const decode = Schema.decodeUnknown(Schema.parseJson(Moment))

describe("ktstr vm run --snapshot", () => {
  it.live(
    "writes a guest's state at points of the run and on a line, and what was in the way of one that was not taken",
    () =>
      Effect.gen(function*() {
        const kernel = yield* kernelImage("6.12")
        const { cwd, env } = yield* place
        const directory = join(cwd, "made", "moments")
        // the guest goes on when it was read, and ends before the series does
        const script = `for n in 1 2 3 4 5 6; do taskset 1 sh -c 'while :; do :; done' & done
          sleep 1000000 & until grep -q sleep /proc/$!/comm; do :; done; echo "@pid $!"; sleep 3`
        const wanted = [
          "periodic=100/10000s",
          "line=^@pid \\d+$",
          "line=^never$",
          "rule=imbalance",
          "rule=user-queue"
        ].flatMap((
          when
        ) => ["--snapshot", when])
        const guest = ["--kernel", kernel, "--memory-mib", "192", "--cpus", "2", "--exec", script]
        const ran = yield* ktstr(["vm", "run", ...guest, "--snapshots", directory, ...wanted], { cwd, env })
        assert.strictEqual(ran.code, 0)
        assert.match(ran.stdout, /^@pid \d+\n$/)
        const said = complaints(ran).filter((line) => line.includes("line_"))
        assert.match(said.join("\n"), /line_001\.json: written; the guest stood still for [\d.]+ ms/)
        assert.match(said.join("\n"), /line_002\.json: not taken: no line matched \/\^never\$\//)

        assert.include(complaints(ran).join("\n"), "user-queue.json: not taken: the rule user-queue was not broken")
        assert.match(complaints(ran).join("\n"), /imbalance\.json: written; the guest stood still for [\d.]+ ms/)

        const names = readdirSync(directory).sort()
        const series = Array.from({ length: 64 }, (_, i) => `periodic_${String(i).padStart(3, "0")}.json`)
        assert.deepStrictEqual(names, ["imbalance.json", "line_001.json", ...series])
        const moments = yield* Effect.forEach(names, (name) => decode(readFileSync(join(directory, name), "utf8")))
        const [imbalance, line, ...others] = moments
        assert.deepInclude(imbalance, { name: "imbalance", cause: "rule" })
        assert.match(imbalance.text, /^rule imbalance was broken at .*: [\d.]+ ×, more than 4; /)
        if ("kind" in imbalance.reading || "kind" in imbalance.reading.sched) return assert.fail("not read")
        const { runQueues } = imbalance.reading.sched
        assert.isAbove(Number("kind" in runQueues ? 0 : runQueues[0].nr_running), 4)
        assert.deepStrictEqual([line.name, line.cause, `${line.text}\n`], ["line_001", "line", ran.stdout])
        if ("kind" in line.reading || "kind" in line.reading.sched || "kind" in line.reading.sched.tasks) {
          return assert.fail("not read")
        }
        assert.deepInclude(line.reading.source, { kind: "vm", kernel })
        assert.strictEqual(line.reading.sched.tasks.find(({ pid }) => line.text === `@pid ${pid}`)?.comm, "sleep")
        for (const { cause, reading } of others) {
          assert.strictEqual(cause, "periodic")
          assert.match("kind" in reading ? reading.text : "", /^the guest has ended /)
        }

        const shown = yield* ktstr(["show", join(directory, "line_001.json")], { cwd, env })
        assert.strictEqual(shown.code, 0)
        assert.match(shown.stdout, /^line_001 {2}@pid \d+\n[^]*\ntasks\n[^]* sleep /)
        const why = yield* ktstr(["show", join(directory, "periodic_000.json")], { cwd, env })
        assert.match(why.stdout, /^periodic_000 {2}point 1 of 64\n.*\nnot read: unreadable: the guest has ended /)
      }).pipe(Effect.scoped),
    200_000
  )

  it.live(
    "writes a guest's state at points of a run while it runs",
    () =>
      Effect.gen(function*() {
        const kernel = yield* kernelImage("6.12")
        const { cwd, env } = yield* place
        const directory = join(cwd, "moments")
        const guest = ["--kernel", kernel, "--memory-mib", "192", "--exec", "sleep 1000000"]
        // those that come before the guest has a kernel say so
        const wanted = ["--snapshots", directory, "--snapshot", "periodic=64/60s"]
        const taken: Array<string> = []
        const ran = yield* ktstr(["vm", "run", ...guest, ...wanted], {
          cwd,
          env,
          meanwhile: async (child) => {
            child.stderr?.on("data", (text: Buffer) => {
              for (const [name] of text.toString().matchAll(/periodic_\d{3}\.json(?=: written)/g)) taken.push(name)
            })
            await until("three are written", () => taken.length >= 3 || child.exitCode !== null, 120)
            child.kill("SIGTERM")
          }
        })
        assert.strictEqual(ran.code, 130)
        assert.isAtLeast(taken.length, 3)
        let before = -1n
        for (const name of taken) {
          const { cause, pauseMillis, reading } = yield* decode(readFileSync(join(directory, name), "utf8"))
          if ("kind" in reading || "kind" in reading.sched) return assert.fail("not read")
          assert.strictEqual(cause, "periodic")
          assert.isAbove(pauseMillis ?? 0, 0)
          assert.isTrue(BigInt(reading.sched.time.jiffies) >= before)
          before = BigInt(reading.sched.time.jiffies)
        }
      }).pipe(Effect.scoped),
    200_000
  )

  it.live(
    "writes a guest's state after each write that changes a variable, and why one cannot be watched",
    () =>
      Effect.gen(function*() {
        const kernel = yield* kernelImage("6.12")
        const { cwd, env } = yield* place
        const directory = join(cwd, "moments")
        const script = "for n in $(seq 9); do sleep 0.3; echo $n > /proc/sys/kernel/panic; done; exit 3"
        const guest = ["--kernel", kernel, "--memory-mib", "192", "--cpus", "2", "--exec", script]
        const wanted = ["panic_timeout", "panic_on_oops", "nosuch", "runqueues", "jiffies+1/8"].flatMap((
          place
        ) => ["--snapshot", `write=${place}`])
        const ran = yield* ktstr(["vm", "run", ...guest, "--snapshots", directory, ...wanted], { cwd, env })
        assert.strictEqual(ran.code, 3)
        const said = complaints(ran).join("\n")
        assert.match(
          said,
          /nosuch_000\.json: not taken: writes to nosuch cannot be watched: 6\.12\S+ has no such symbol; /
        )
        assert.match(said, /runqueues_000\.json: not taken: .*: each CPU has a variable of that name; /)
        assert.match(said, /jiffies\+1_000\.json: not taken: .*: 0xffffffff\w+1 is not aligned to 8 bytes; /)
        assert.match(said, /panic_on_oops_000\.json: not taken: the guest did not change panic_on_oops/)

        // the first writes may come before the watch does
        const names = readdirSync(directory).sort()
        assert.isAbove(names.length, 0)
        const [first, ...others] = yield* Effect.forEach(names, (name) =>
          decode(readFileSync(join(directory, name), "utf8")))
        assert.deepStrictEqual(
          [first, ...others].map(({ text }) =>
            text
          ).join("\n"),
          Array.from(names, (_, i) => 10 - names.length + i).map((value) =>
            `panic_timeout changed from 0x${value === 1 ? "ffffffff" : value - 1} to 0x${value}`
          ).join("\n")
        )
        for (const { cause, name, reading } of [first, ...others]) {
          if ("kind" in reading || "kind" in reading.vcpus) return assert.fail("not read")
          assert.deepStrictEqual([cause, names.includes(`${name}.json`)], ["write", true])
          assert.isTrue(reading.vcpus.some(({ place }) => place?.startsWith("do_proc_dointvec_conv+") === true))
        }
        const shown = yield* ktstr(["show", join(directory, "panic_timeout_000.json")], { cwd, env })
        assert.include(shown.stdout, `panic_timeout_000  ${first.text}\n`)
      }).pipe(Effect.scoped),
    200_000
  )

  it.scopedLive("says what is wrong with its options before it looks for the kernel", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      const wrong = (...args: ReadonlyArray<string>) =>
        Effect.map(
          ktstr(["vm", "run", "--kernel", "/none", "--exec", "true", ...args], { cwd, env }),
          ({ code, stderr }) => {
            return `${code} ${stderr.split("\n", 1)[0]}`
          }
        )
      assert.match(yield* wrong("--snapshot", "line=x"), /^2 .*give both/)
      assert.match(yield* wrong("--snapshots", "."), /^2 .*give both/)
      assert.match(
        yield* wrong("--snapshots", ".", "--snapshot", "every=8"),
        /^2 .*every=8: give periodic=8\/60s, line=REGEX, write=SYMBOL, or rule=NAME/
      )
      assert.match(yield* wrong("--snapshots", ".", "--snapshot", "write=a b"), /^2 .*write=a b: give periodic/)
      assert.match(
        yield* wrong("--snapshots", ".", "--snapshot", "write=a+8/4", "--snapshot", "write=a+8"),
        /^2 .*--snapshot write and rule can be given once for each variable and rule/
      )
      assert.match(
        yield* wrong("--snapshots", ".", "--snapshot", "rule=none"),
        /^2 .*rule=none: no such rule; there are imbalance, .*, runnable-age/
      )
      assert.match(yield* wrong("--snapshots", ".", "--snapshot", "line=("), /^2 .*line=\(: not a regular expression/)
      assert.match(
        yield* wrong("--snapshots", "/dev/null/none", "--snapshot", "line=x"),
        /^1 .*cannot write \/dev\/null\/none: ENOTDIR: not a directory; give a writable path/
      )
    }), 60_000)
})
