import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { DUMP_VERSION } from "../../../src/bpf/Report.ts"
import { failureText, momentText } from "../../../src/cli/monitor/failureText.ts"
import { NotAFailure, parseFailure } from "../../../src/cli/monitor/show.ts"
import { escapeLine } from "../../../src/cli/terminal/escapeControls.ts"
import { FailureDocument, failurePage } from "../../../src/monitor/index.ts"
import { readSched } from "../../../src/sched/index.ts"
import { MadeSched } from "../../sched/MadeSched.ts"
import { mutateJson, MUTATIONS, MUTATIONS_TIMEOUT, peakMib, tryAll } from "../../support/mutations.ts"

/** More than the peak before, in MiB: what files of a few KiB may make this process use. */
const MOST_GROWTH = 512

/** Markup in every way that has a place in a page, and what a terminal acts on. */
const HOSTILE =
  "</td></pre></title></style></script><script>alert(1)</script><img src=x onerror=alert(2)>\" onfocus=alert(3) '\u001b[2J\u009b\u202e\ud800\n"

const source = { kind: "vm", engine: "qemu", kernel: "made" } as const
const kernel = { release: "6.12", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 2 } as const
const at = "2026-11-29T11:00:00.000Z"

/** A document with each of its parts. */
const golden = (() => {
  const made = new MadeSched()
  const ext = { sched_class: made.symbol("ext_sched_class"), on_rq: 1, "scx.flags": 1, "scx.runnable_at": 9_000 }
  const tasks = ["one", "two"].map((comm, i) => made.task({ ...ext, comm, pid: 10 + i, tgid: 10 + i }))
  for (const task of tasks) made.process(task)
  const [queue, global] = [made.allocate(256), made.allocate(256)]
  made.dispatchQueue(queue, 42n, tasks)
  made.dispatchQueue(global, 0n, [])
  made.scheduler("made", [queue], global)
  const sched = readSched(made.kernel())
  const stalled = { comm: "two", pid: 11, millis: 5250 }
  const exit = {
    atMicros: 5,
    scheduler: "made",
    kind: "error" as const,
    reason: "runnable task stall",
    message: "two[11] failed to run for 5.250s",
    stalled,
    stack: [{ name: "scx_watchdog_workfn", offset: 5, size: 9 }],
    stackIsWatchdogs: true
  }
  const info = { id: 1, name: "made", type: "hash", flags: 0, keySize: 4, valueSize: 8, maxEntries: 8 }
  const map = {
    ...info,
    keyTypeId: 1,
    valueTypeId: 2,
    btfId: 1,
    details: null,
    consistency: "frozen" as const,
    entries: [{ key: 1, value: { a: 5 } }],
    truncated: true,
    problem: { kind: "truncated" as const, text: "there are more" }
  }
  const reading = {
    source,
    kernel,
    freeze: null,
    vcpus: [{
      cpu: 0,
      mode: "kernel" as const,
      place: "default_idle",
      callers: ["do_idle+0x1b7"],
      registers: { rip: "0xffffffff81000000" }
    }],
    sched,
    links: [],
    maps: [map],
    programs: [],
    problems: [{ kind: "unreadable" as const, text: "0x10 is not mapped" }],
    losses: 1
  }
  // as older dumps have them: without the time that the host gave each CPU
  const sample = (seconds: number) => ({
    at: `2026-11-29T10:59:${50 + seconds}.000Z`,
    consistency: "racing",
    seconds: 1,
    scheduler: "made",
    watchdogMillis: 5000,
    cpus: [{
      cpu: 0,
      online: true,
      nr_running: 2,
      clockMillis: 5,
      runs: "one[10]",
      switchesPerSecond: 7
    }],
    queues: [{ name: "queue 42", kind: "user", nr: 2, change: 1 }],
    oldest: { pid: 11, comm: "two", millis: 900 * seconds, cpu: 0 },
    eventsPerSecond: { ENQ: 5 },
    findings: [],
    problems: [{ part: "tasks", kind: "truncated", text: "there are more" }]
  })
  return {
    schema: "dual",
    version: DUMP_VERSION,
    failure: { kind: "scheduler", text: "made: ERROR_STALL: two[11] failed to run for 5.250s", seenIn: "memory", at },
    degraded: null,
    ...reading,
    console: ["a line"],
    log: { lines: [{ atMicros: 5, text: "a line" }], exits: [exit], problem: null },
    samples: [sample(1), sample(2), sample(3)],
    early: { name: "half", cause: "age", text: "two[11] waits", at, pauseMillis: 5, reading }
  }
})()

/** That a text goes to a terminal, and a page to a browser, without anything of the document's acting on them. */
const assertHarmless = (document: FailureDocument): void => {
  const text = failureText(document) + (document.early === undefined ? "" : momentText(document.early))
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  assert.notMatch(text, /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u)
  const page = failurePage(document)
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  assert.notMatch(page, /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u)
  const parts = page.split("<script>")
  assert.lengthOf(parts, 2)
  const open: Array<string> = []
  for (const [tag, close, name] of page.replace(/<script>[^]*<\/script>/, "").matchAll(/<(\/?)([a-z0-9]+)[^>]*>/g)) {
    assert.notMatch(tag, /\son[a-z]+=|javascript:|<img/)
    if (["meta", "input", "rect"].includes(name)) continue
    if (close === "") open.push(name)
    else assert.strictEqual(open.pop(), name)
  }
  assert.deepStrictEqual(open, [])
}

const shown = (text: string): boolean => {
  const parsed = parseFailure(text, "mutated")
  assert.notProperty({}, "polluted")
  if (Either.isLeft(parsed)) {
    assert.instanceOf(parsed.left, NotAFailure)
    assert.isBelow(parsed.left.message.length, 400)
    // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
    assert.notMatch(escapeLine(parsed.left.message), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u)
    return false
  }
  assertHarmless(parsed.right)
  return true
}

/** The texts of a document, by where they are. */
const textsIn = (value: unknown, path: ReadonlyArray<string> = []): ReadonlyArray<ReadonlyArray<string>> =>
  typeof value === "string"
    ? [path]
    : typeof value === "object" && value !== null
    ? Object.entries(value).flatMap(([name, member]) => textsIn(member, [...path, name]))
    : []

describe("a forged dump of a failure", () => {
  const text = JSON.stringify(golden)

  it.effect("is one where nothing is forged", () =>
    Effect.gen(function*() {
      const document = yield* parseFailure(text, "made")
      assert.deepStrictEqual(document, yield* Schema.decodeUnknown(FailureDocument)(JSON.parse(text)))
      assertHarmless(document)
    }))

  it("says of a snapshot, too, what could not be read whole", () => {
    const { early } = Either.getOrThrow(parseFailure(JSON.stringify(golden), "x.json"))
    const text = momentText(early ?? assert.fail("it has no early moment"))
    assert.isTrue(text.startsWith("half  two[11] waits\n"))
    assert.match(text, /\nproblem: .*0x10 is not mapped\nincomplete: 1 part could not be read whole\n$/)
  })

  it("says in a page, too, what could not be read whole", () => {
    const document = Either.getOrThrow(parseFailure(text, "x.json"))
    assert.notInclude(failurePage({ ...document, losses: 0, problems: [] }), "Not read whole")
    const problem = { kind: "unreadable", text: "map_idr: 0x10 is <not> mapped" } as const
    const page = failurePage({ ...document, losses: 2, problems: [problem] })
    assert.match(
      page,
      /<h2>Not read whole<\/h2>\n<pre[^>]*>unreadable: map_idr: 0x10 is &lt;not&gt; mapped\n2 parts could not be/
    )
  })

  it("has markup and a terminal's commands in each text in turn: it is refused, or they are text", () => {
    let read = 0
    const places = textsIn(JSON.parse(text))
    for (const place of places) {
      const forged = JSON.parse(text)
      const parent = place.slice(0, -1).reduce((at, name) => at[name], forged)
      parent[place.at(-1)!] = HOSTILE
      if (shown(JSON.stringify(forged))) read++
    }
    assert.isAbove(read, places.length / 2)
  })

  it("is of another version, or nothing like one: the line says what is wrong", () => {
    const why = (change: object) => {
      const parsed = parseFailure(JSON.stringify({ ...golden, ...change }), "x.json")
      return Either.isLeft(parsed) ? parsed.left.message : ""
    }
    assert.strictEqual(
      why({ version: 99 }),
      "x.json is a dump of version 99, and this ktstr reads version 2; use the ktstr that wrote it"
    )
    assert.match(
      why({ version: "1" }),
      /^x\.json is not a dump of a failure: version: .*"1"; make one with ktstr vm run/
    )
    assert.match(why({ schema: "sched-diff" }), /^x\.json is not a dump of a failure: schema: /)
    assert.match(why({ maps: -1 }), /^x\.json is not a dump of a failure: maps: /)
  })

  it(`is refused or shown, whatever ${MUTATIONS} mutations say`, async () => {
    const before = peakMib()
    const read = await tryAll((pick) => shown(mutateJson(text, pick)))
    assert.isAbove(read, MUTATIONS / 10, "enough of them are dumps")
    assert.isBelow(peakMib() - before, MOST_GROWTH, "MiB more than before")
  }, MUTATIONS_TIMEOUT)
})
