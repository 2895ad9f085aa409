import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import { failureText } from "../../src/cli/monitor/failureText.ts"
import { dumpPieces } from "../../src/cli/terminal/Printable.ts"
import { unreadable } from "../../src/core/Reason.ts"
import {
  degradedFailure,
  type Failure,
  FailureDocument,
  failurePage,
  sealFailure,
  stuckTask
} from "../../src/monitor/index.ts"
import { readSched } from "../../src/sched/index.ts"
import { MadeSched } from "../sched/MadeSched.ts"

/** 15 bytes, the most that a task's name has: markup, and a terminal's command. */
const HOSTILE = "</p><b>\u001b[2J'\""
const SCRIPT_TAG = "<script>alert(1)</script>"

const failure: Failure = {
  kind: "scheduler",
  text: `made: ERROR_STALL: ${HOSTILE}[11] failed to run for 5.250s`,
  seenIn: "memory",
  at: "2026-11-29T11:00:00.000Z"
}

const decode = Schema.decodeUnknown(Schema.parseJson(FailureDocument))

const documentOf = (captured: Parameters<typeof sealFailure>[0]) =>
  Effect.suspend(() => decode(Buffer.concat([...dumpPieces(sealFailure(captured))]).toString()))

/** A scheduler with two tasks, of which one has a hostile name: they wait in its queue, or where the kernel puts them. */
const schedOf = (place: "queue" | "global" = "queue", runnableAt = 9_000) => {
  const sched = new MadeSched()
  const ext = { sched_class: sched.symbol("ext_sched_class"), on_rq: 1, "scx.flags": 1, "scx.runnable_at": runnableAt }
  const tasks = ["first", HOSTILE].map((comm, i) => sched.task({ ...ext, comm, pid: 10 + i, tgid: 10 + i }))
  for (const task of tasks) sched.process(task)
  const [queue, global] = [sched.allocate(256), sched.allocate(256)]
  sched.dispatchQueue(queue, 42n, place === "queue" ? tasks : [])
  sched.dispatchQueue(global, 0n, place === "queue" ? [] : tasks)
  sched.scheduler(SCRIPT_TAG, [queue], global)
  return readSched(sched.kernel())
}

/** A guest that was not read but for its scheduler. */
const made = Effect.gen(function*() {
  const why = unreadable(`it did not stop ${SCRIPT_TAG}`)
  const source = { kind: "vm", engine: "qemu", kernel: "made" } as const
  const document = yield* documentOf(degradedFailure(failure, source, why, [`console \u202e${SCRIPT_TAG}`]))
  const exit = {
    atMicros: 5,
    scheduler: SCRIPT_TAG,
    kind: "error" as const,
    reason: "runtime error",
    message: "\u001b]0;title\u0007",
    stalled: null,
    stack: [],
    stackIsWatchdogs: false
  }
  const log = { lines: [{ atMicros: 5, text: `${SCRIPT_TAG}\u009b` }], exits: [exit], problem: null }
  return { ...document, sched: schedOf(), log }
})

describe("a dump of a failure", () => {
  it.effect("of a guest that was not read says why, and is read again as it was written", () =>
    Effect.gen(function*() {
      const why = unreadable("the guest did not stop")
      const source = { kind: "vm", engine: "qemu", kernel: "made" } as const
      const lines = Array.from({ length: 1000 }, (_, line) => `line ${line} ${HOSTILE}`)
      const document = yield* documentOf(degradedFailure(failure, source, why, lines))
      assert.deepStrictEqual(
        [document.schema, document.degraded, document.failure, document.sched, document.maps],
        ["degraded", why, failure, why, []]
      )
      assert.deepStrictEqual(document.console, lines.slice(-400))
      assert.match(failureText(document), /^scheduler .*\n.*\nnot read: unreadable: the guest did not stop\n/)
    }))

  it.effect("names the task that did not run, and the queue that it waits in", () =>
    Effect.gen(function*() {
      const document = yield* made
      const stuck = stuckTask(document)
      assert.deepStrictEqual(
        [stuck?.comm, stuck?.pid, stuck?.millis, stuck?.place, stuck?.task?.pid],
        [HOSTILE, 11, 5250, "in queue 42", 11]
      )
      assert.match(
        failureText(document),
        /stuck: <\/p><b>\\x1b\[2J'"\[11\] has been runnable for 5\.3 s: it is in queue 42/
      )
      assert.strictEqual(stuckTask({ ...document, failure: { ...failure, text: "made: ERROR: bad" } }), undefined)
    }))

  it.effect("names the queue that the stuck task was in before the kernel moved it, if it has not run since", () =>
    Effect.gen(function*() {
      const { early: _, ...document } = yield* made
      const taken = { name: "early", cause: "age", text: "it waits", at: failure.at, pauseMillis: 5 } as const
      const before = { ...taken, reading: document }
      const placeOf = (sched: FailureDocument["sched"], early?: typeof before) => {
        const stuck = stuckTask({ ...document, sched, ...early === undefined ? {} : { early } })
        return [stuck?.place, stuck?.early]
      }
      assert.deepStrictEqual(placeOf(schedOf("global")), ["in the global queue of node 0", false])
      assert.deepStrictEqual(placeOf(schedOf("global"), before), ["in queue 42", true])
      assert.deepStrictEqual(placeOf(schedOf("queue"), before), ["in queue 42", false])
      assert.deepStrictEqual(placeOf(schedOf("global", 9_100), before), ["in the global queue of node 0", false])
    }))

  it.effect("says in the place of each part that was not read why it was not", () =>
    Effect.gen(function*() {
      const document = yield* made
      if ("kind" in document.sched) return assert.fail("not read")
      const part = (name: string) => unreadable(`${name} are torn`)
      const sched = {
        ...document.sched,
        tasks: part("tasks"),
        runQueues: part("run queues"),
        dispatchQueues: part("dispatch queues"),
        scx: part("schedulers")
      }
      const torn = { ...document, sched, links: part("links") }
      const page = failurePage(torn)
      const text = failureText(torn)
      for (
        const [title, name] of [
          ["Tasks", "tasks"],
          ["CPUs", "run queues"],
          ["Dispatch queues", "dispatch queues"],
          ["sched_ext", "schedulers"]
        ] as const
      ) {
        assert.include(page, `<h2>${title}</h2>\n<p>Not read: unreadable: ${name} are torn</p>`)
        assert.include(text, `unreadable: ${name} are torn`)
      }
      assert.match(text, /\ntasks\nnot read: unreadable: tasks are torn\n/)
      assert.match(text, /\ndispatch queues with tasks\nnot read: unreadable: dispatch queues are torn\n/)
      assert.match(text, /\nlinks: not read: unreadable: links are torn\n/)
    }))

  it.effect("is a page that shows a CPU which is idle though a task waits, and an empty queue as empty", () =>
    Effect.gen(function*() {
      const sampled = (at: number, runs: string, nr: number) => ({
        at: `2026-11-29T10:59:5${at}.000Z`,
        consistency: "racing" as const,
        seconds: 1,
        standsMillis: 0,
        scheduler: "made",
        watchdogMillis: 5000,
        cpus: [{ cpu: 0, online: true, nr_running: 1, clockMillis: 5, runs, switchesPerSecond: 7, vcpuMillis: 900 }],
        queues: nr === 0 ? [] : [{ name: "local", kind: "local" as const, nr, change: null }],
        oldest: null,
        eventsPerSecond: {},
        findings: [],
        problems: []
      })
      const page = failurePage({ ...yield* made, samples: [sampled(0, "first[10]", 2), sampled(5, "idle", 0)] })
      assert.include(
        page,
        `<rect class="busy" x="0" width="500" height="10"/><rect class="left" x="500" width="500" height="10"/>`
      )
      assert.include(page, `aria-label="CPU 0: a task ran in 1 of 2 samples"`)
      assert.match(page, /<tr><td class="n" data-value="-5">-5\.0<\/td>.*<td class="n" data-value="0">0<\/td><\/tr>/)
    }))

  it.effect("is shown without a character that moves the cursor or hides text", () =>
    Effect.gen(function*() {
      const text = failureText(yield* made)
      // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
      assert.notMatch(text, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/)
      assert.include(text, "\\x1b]0;title\\x07")
      assert.include(text, "\\u202e")
    }))

  it.effect("is a page in which the guest's words are no markup, and no script but the page's own may run", () =>
    Effect.gen(function*() {
      const page = failurePage(yield* made)
      const [head, ...scripts] = page.split("<script>")
      assert.strictEqual(scripts.length, 1)
      const [script] = scripts[0].split("</script>")
      assert.include(head, `script-src 'sha256-${createHash("sha256").update(script).digest("base64")}'`)
      assert.include(head, "default-src 'none'")
      assert.notMatch(page, /<b>|https?:|@import|url\(|\ssrc=/)
      assert.include(page, "&lt;script&gt;alert(1)&lt;/script&gt;")
      assert.include(page, "<td>&lt;/p&gt;&lt;b&gt;\\u001b[2J&#39;&quot;</td>")
      // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
      assert.notMatch(page, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]/)
      // every element that was opened is closed, in order: nothing of the guest's opened or closed one
      const open: Array<string> = []
      for (const [, close, name] of page.replace(/<script>[^]*<\/script>/, "").matchAll(/<(\/?)([a-z0-9]+)[^>]*>/g)) {
        if (["meta", "input"].includes(name)) continue
        if (close === "") open.push(name)
        else assert.strictEqual(open.pop(), name)
      }
      assert.deepStrictEqual(open, [])
    }))
})
