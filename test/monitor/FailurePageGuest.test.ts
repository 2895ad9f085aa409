import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { readFileSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { escapeText } from "../../src/core/EscapeText.ts"
import { boot, recordFailure } from "../../src/Ktstr.ts"
import { FailureDocument, failurePage, Monitor, sealFailure } from "../../src/monitor/index.ts"
import { type Browser, browser, LAYOUT_FAULTS, type Tab } from "../support/browser.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { kernelImage } from "../support/kernels.ts"

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")

const VIEWS = [1280, 400].flatMap((width) => (["light", "dark"] as const).map((theme) => ({ width, theme })))

/** Markup, in 15 bytes, the most that a task's name has; then in as many as a line of the log may have. */
const TASK = "<b>&quot;'</b>"
const MARKUP =
  "</pre></td><img src=x onerror=alert(1)><script>alert(2)</script><svg onload=alert(3)>\" onfocus=alert(4) '"

const FAILURE = {
  kind: "script",
  text: `the script ended with exit status 3 ${MARKUP}`,
  seenIn: "report"
} as const

/** The guest has no scheduler: its samples get made queues, more than the page has, and a made wait. */
const MADE_QUEUES = (sample: number) => ({
  queues: Array.from({ length: 14 }, (_, i) => ({
    name: `queue ${i} ${MARKUP}`,
    kind: "user" as const,
    nr: i === 0 && sample < 3 ? 0 : i * sample,
    change: null
  })),
  oldest: sample < 10 ? null : { pid: 1, comm: TASK, millis: 200 * (sample - 10), cpu: 0 }
})

/** A guest of a thousand tasks, among them one with markup as its name, and markup in the log and on the console. */
const SCRIPT = `
echo 8192 >/proc/sys/kernel/pid_max
i=0; while [ $i -lt 950 ]; do sleep 100000 & i=$((i + 1)); done
(printf '%s' "$MARKUP_NAME" >/proc/self/comm; read line </dev/console) &
printf '%s\\n' "$MARKUP"
printf '%s\\n' "$MARKUP" >/dev/kmsg
`

const crowded = Effect.gen(function*() {
  const kernel = yield* kernelImage("6.12")
  const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`
  const script = `MARKUP_NAME=${quoted(TASK)}; MARKUP=${quoted(MARKUP)}\n${SCRIPT}`
  const vm = yield* boot({ kernel, cpus: 4, memoryMib: 512, script, timeout: "4 minutes" })
  const busy = yield* Effect.fork(
    vm.exec("for i in 1 2 3 4 5 6; do timeout 8 sh -c 'while :; do :; done' & done; wait")
  )
  const samples = yield* Stream.runCollect(Stream.take(Monitor.samples(vm, { every: "200 millis" }), 30))
  yield* Fiber.interrupt(busy)
  const failure = { ...FAILURE, at: new Date().toISOString() }
  const sealed = sealFailure({
    ...yield* recordFailure(vm, kernel, failure),
    samples: [...samples].map((sample, i) => ({ ...sample, ...MADE_QUEUES(i) }))
  })
  const document = yield* Schema.decodeUnknown(Schema.parseJson(FailureDocument))(Buffer.concat(sealed).toString())
  if ("kind" in document.sched || "kind" in document.sched.tasks) return assert.fail("not read")
  const { tasks } = document.sched
  assert.isAbove(tasks.length, 1000)
  assert.isTrue(tasks.some(({ comm }) => comm === TASK))
  assert.include(document.console, MARKUP)
  assert.isTrue(document.log.lines.some(({ text }) => text === MARKUP))
  return document
}).pipe(Effect.scoped)

/** The document with the same text in place of each, but of those by which is told what a thing is. */
const withTexts = (value: unknown, text: string, name = ""): unknown => {
  if (typeof value === "string") return ["kind", "schema", "address", "jiffies"].includes(name) ? value : text
  if (Array.isArray(value)) return value.map((item) => withTexts(item, text, name))
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, withTexts(member, text, key)]))
}

/** Elements of each name, and attributes that run scripts. */
const ELEMENTS = `(() => {
  const names = {}
  for (const { localName, attributes } of document.querySelectorAll("*")) {
    names[localName] = (names[localName] ?? 0) + 1
    for (const { name } of attributes) if (name.startsWith("on")) names[name] = (names[name] ?? 0) + 1
  }
  return names
})()`

const accessibility = (tab: Tab) =>
  tab.evaluate<ReadonlyArray<string>>(`${AXE}; axe.run({ resultTypes: ["violations"] }).then(({ violations }) =>
    violations.map(({ id, nodes }) => id + ": " + nodes.length + " such as " + nodes[0].html.slice(0, 200)))`)

/** The page's own account of its samples. */
const SAMPLES = `[...document.querySelectorAll("#samples tbody tr")].map(({ cells }) =>
  [...cells].map(({ dataset, textContent }) => [dataset.value === undefined ? null : Number(dataset.value), textContent]))`

/** Charts that are shown, by title: the colors that their canvas has. */
const CHARTS = `Object.fromEntries([...document.querySelectorAll("figure")].filter((figure) => figure.checkVisibility())
  .map((figure) => {
    const canvas = figure.querySelector("canvas")
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
    const pixels = new Set()
    for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) pixels.add(data.slice(at, at + 3).join())
    return [figure.querySelector("figcaption").textContent, pixels.size]
  }))`

/** The contrast with the page of each line that a chart has, by the mark in its legend: WCAG 2.1's, of which it asks 3 for graphics. */
const LINES = `(() => {
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((value) => value / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const page = luminance(getComputedStyle(document.body).backgroundColor)
  return [...document.querySelectorAll(".u-series:not(:first-child) .u-marker")].map((mark) => {
    const line = luminance(getComputedStyle(mark).borderTopColor)
    return (Math.max(page, line) + 0.05) / (Math.min(page, line) + 0.05)
  })
})()`

/** A browser lays a part out, and gives its text, when it is scrolled to. */
const ALL_SHOWN = `document.querySelectorAll("section").forEach(({ style }) => style.contentVisibility = "visible")`

/** The samples' numbers are a table without scripts, and charts with them. */
const assertTimeline = (chromium: Browser, file: string, { samples = [] }: FailureDocument) =>
  Effect.promise(async () => {
    const plain = await chromium.open(file, { width: 1280, theme: "light", scripts: false })
    const rows = await plain.evaluate<ReadonlyArray<ReadonlyArray<readonly [number | null, string]>>>(SAMPLES)
    const shown = rows.map(([, wait, ...cells]) => [wait[0], ...cells.slice(0, 4)])
    assert.deepStrictEqual(
      shown,
      samples.map(({ cpus, oldest }) => [
        oldest === null ? null : oldest.millis,
        ...cpus.map(({ nr_running, runs }): readonly [number, string] => [nr_running, `${nr_running} ${runs}`])
      ])
    )
    // the longest queues, the longest one first
    assert.deepStrictEqual(
      rows[29].slice(6).map(([nr]) => nr),
      [13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2].map((i) => i * 29)
    )
    const text = await plain.evaluate<string>("document.body.innerText")
    assert.include(text, "left out: 2 more queues, which were shorter")
    assert.deepStrictEqual(await plain.evaluate(CHARTS), {})
    const busy = samples.filter(({ cpus }) => cpus[0].runs !== "idle").length
    const strip = `document.querySelector(".strips svg")`
    assert.strictEqual(
      await plain.evaluate(`${strip}.getAttribute("aria-label")`),
      `CPU 0: a task ran in ${busy} of ${samples.length} samples`
    )
    for (const theme of ["light", "dark"] as const) {
      const tab = await chromium.open(file, { width: 400, theme })
      const charts = await tab.evaluate<Record<string, number>>(CHARTS)
      assert.deepStrictEqual(Object.keys(charts), [
        "Tasks that run or wait, by CPU",
        "Tasks in dispatch queues",
        "Longest wait of a task of sched_ext, in milliseconds"
      ])
      for (const colors of Object.values(charts)) assert.isAbove(colors, 2) // axes, grid, lines
      const contrasts = await tab.evaluate<ReadonlyArray<number>>(LINES)
      assert.isAbove(contrasts.length, 12)
      assert.isAbove(Math.min(...contrasts), 3, `${theme}: ${contrasts}`)
    }
  })

const assertText = (chromium: Browser, file: string, { console, sched, log }: FailureDocument) =>
  Effect.promise(async () => {
    const tab = await chromium.open(file, { width: 1280, theme: "light", scripts: false })
    await tab.evaluate(ALL_SHOWN)
    const text = await tab.evaluate<string>("document.body.innerText")
    if ("kind" in sched || "kind" in sched.tasks) return assert.fail("not read")
    const wanted = [
      ...sched.tasks.map(({ comm, pid }) => `${pid}\t${escapeText(comm)}\t`),
      ...[...console, ...log.lines.map((line) => line.text)].map(escapeText)
    ]
    assert.deepStrictEqual(wanted.filter((words) => !text.includes(words)), [])
  })

/** Parts that a browser has not laid out, which would take most of the time in which it opens a page of a thousand tasks. */
const LEFT_OUT = `new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))).then(() =>
  [...document.querySelectorAll("h2")].filter((head) => !head.checkVisibility({ contentVisibilityAuto: true }))
    .map((head) => head.textContent))`

/** In each width and theme nothing lies over another, nothing is wider than the page, and axe has nothing to say. */
const assertViews = (chromium: Browser, file: string) =>
  Effect.promise(async () => {
    for (const view of VIEWS) {
      const tab = await chromium.open(file, view)
      assert.includeMembers(await tab.evaluate<Array<string>>(LEFT_OUT), ["Tasks"])
      await tab.evaluate(ALL_SHOWN)
      const { boxes, faults } = await tab.evaluate<{ boxes: number; faults: ReadonlyArray<string> }>(LAYOUT_FAULTS)
      assert.deepStrictEqual(faults, [], JSON.stringify(view))
      assert.isAbove(boxes, 1000)
      // of a thousand rows it takes ten seconds or more
      if (view.width > 1000 === (view.theme === "dark")) assert.deepStrictEqual(await accessibility(tab), [])
      assert.deepStrictEqual([tab.requests, tab.dialogs], [[`file://${file}`], []])
    }
  })

/** The table's rows that are shown, by their first two cells. */
const ROWS = `[...document.querySelectorAll("#tasks tbody tr")].filter((row) => row.checkVisibility())
  .map(({ cells }) => [Number(cells[0].textContent), cells[1].textContent])`

const assertTable = (chromium: Browser, file: string, { sched }: FailureDocument) =>
  Effect.promise(async () => {
    const tab = await chromium.open(file, { width: 1280, theme: "light" })
    if ("kind" in sched || "kind" in sched.tasks) return assert.fail("not read")
    const rows = () => tab.evaluate<ReadonlyArray<readonly [number, string]>>(ROWS)
    const pids = sched.tasks.map(({ pid }) => pid).sort((one, other) => one - other)
    const click = () => tab.evaluate(`document.querySelector("#tasks th button").click()`)
    await click()
    assert.deepStrictEqual((await rows()).map(([pid]) => pid), pids)
    await click()
    assert.deepStrictEqual((await rows()).map(([pid]) => pid), pids.reverse())
    await tab.evaluate(`document.getElementById("search").focus()`)
    await tab.call("Input.insertText", { text: TASK.toUpperCase() })
    const marked = sched.tasks.filter(({ comm }) => comm === TASK)
    assert.deepStrictEqual(await rows(), marked.map(({ comm, pid }) => [pid, comm]))
  })

/** With the page's policy off, so that it is harmless by what is in it, too. */
const assertInert = (chromium: Browser, directory: string, document: FailureDocument) =>
  Effect.promise(async () => {
    const elements = async (name: string, document: FailureDocument) => {
      const file = join(directory, `${name}.html`)
      writeFileSync(file, failurePage(document))
      const tab = await chromium.open(file, { width: 1280, theme: "light", policy: false })
      const found = await tab.evaluate<Record<string, number>>(ELEMENTS)
      assert.deepStrictEqual([tab.requests, tab.dialogs], [[`file://${file}`], []])
      return found
    }
    // the same elements, whatever the texts are
    const marked = await elements("marked", withTexts(document, MARKUP) as FailureDocument)
    assert.deepStrictEqual(marked, await elements("harmless", withTexts(document, "harmless") as FailureDocument))
    assert.strictEqual(marked["script"], 1)
  })

/** A page with each fault that the checks look for. */
const FAULTY = `<!doctype html><html><head><title>faulty</title></head><body><h1>faulty</h1><p>over</p>
<p style="margin-top:-2em">under</p><p style="width:3000px;color:#ddd;background:#fff">wide</p><input></body></html>`

describe("the checks of a page", () => {
  it.live(
    "find texts over each other, a page that is too wide, low contrast, and what has no label",
    () =>
      Effect.gen(function*() {
        const directory = yield* scratch
        const file = join(directory, "faulty.html")
        writeFileSync(file, FAULTY)
        const chromium = yield* browser(join(directory, "profile"))
        const tab = yield* Effect.promise(() => chromium.open(file, { width: 400, theme: "light" }))
        const { faults } = yield* Effect.promise(() => tab.evaluate<{ faults: ReadonlyArray<string> }>(LAYOUT_FAULTS))
        assert.match(faults[0], /^the page is 30\d\d wide$/)
        assert.include(faults, "over lies over under")
        const found = (yield* Effect.promise(() => accessibility(tab))).map((fault) => fault.split(":", 1)[0])
        assert.includeMembers(found, ["color-contrast", "html-has-lang", "label"])
      }).pipe(Effect.scoped, Effect.provide(HostLive)),
    60_000
  )
})

describe("the page of a guest that failed with a thousand tasks", () => {
  it.live(
    "is small, readable without scripts, lies well in each view, sorts, searches, and runs nothing of the guest's",
    () =>
      Effect.gen(function*() {
        const document = yield* crowded
        const directory = yield* scratch
        const file = join(directory, "page.html")
        const page = failurePage(document)
        writeFileSync(file, page)
        assert.isBelow(Buffer.byteLength(page), 3e6)
        const chromium = yield* browser(join(directory, "profile"))
        yield* assertText(chromium, file, document)
        yield* assertViews(chromium, file)
        yield* assertTimeline(chromium, file, document)
        yield* assertTable(chromium, file, document)
        yield* assertInert(chromium, directory, document)
      }).pipe(Effect.scoped, Effect.provide(HostLive)),
    300_000
  )
})
