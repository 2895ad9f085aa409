import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import type { Readable, Writable } from "node:stream"

/** What a page is shown with. */
export interface View {
  readonly width: number
  readonly theme: "light" | "dark"
  /** Whether the page's own scripts run; those of `evaluate` do in any case. */
  readonly scripts?: boolean
  /** Whether the page's own policy for scripts holds. */
  readonly policy?: boolean
}

interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: { readonly request?: { readonly url: string }; readonly message?: string }
  readonly result?: unknown
  readonly error?: { readonly message: string }
}

interface Evaluated<A> {
  readonly result: { readonly value: A }
  readonly exceptionDetails?: { readonly text: string; readonly exception?: { readonly description?: string } }
}

/** Debian's Chromium without a window, spoken to by the DevTools protocol on descriptors 3 and 4. */
export const browser = (profile: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const flags = ["--headless", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
      const child = spawn(
        "chromium",
        // root, as in a container, has no sandbox; the pages are ours
        [...flags, "--no-sandbox", "--no-first-run", "--remote-debugging-pipe", `--user-data-dir=${profile}`],
        { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"], detached: true }
      )
      const ended = new Promise<never>((_, reject) => {
        child.on("error", (error) => reject(new Error(`${error.message}: npm run setup installs it`)))
        child.on("exit", (code, signal) => reject(new Error(`chromium ended: ${code ?? signal}`)))
      })
      ended.catch(() => undefined)
      const connection = new Browser(child.stdio[3] as Writable, child.stdio[4] as Readable, ended)
      return { child, connection }
    }),
    ({ child, connection }) =>
      Effect.promise(async () => {
        if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
        const exit = once(child, "exit")
        connection.call<object>("Browser.close").catch(() => undefined)
        await exit
      })
  ).pipe(Effect.map(({ connection }) => connection))

/** A browser that runs. */
export class Browser {
  readonly #output: Writable
  readonly #ended: Promise<never>
  readonly #waiting = new Map<number, (message: Message) => void>()
  readonly #listeners = new Map<string, (message: Message) => void>()
  #last = 0

  constructor(output: Writable, input: Readable, ended: Promise<never>) {
    this.#output = output
    this.#ended = ended
    output.on("error", () => undefined) // `ended` tells it
    let rest = ""
    input.setEncoding("utf8").on("data", (piece: string) => {
      const messages = (rest + piece).split("\0")
      rest = messages.pop() ?? ""
      for (const text of messages) this.#take(JSON.parse(text))
    })
  }

  #take(message: Message & { readonly sessionId?: string }): void {
    if (message.id !== undefined) this.#waiting.get(message.id)?.(message)
    else this.#listeners.get(message.sessionId ?? "")?.(message)
  }

  /** The answer to a command of the protocol. */
  async call<A>(method: string, params: object = {}, sessionId?: string): Promise<A> {
    const id = ++this.#last
    const answer = new Promise<Message>((resolve) => this.#waiting.set(id, resolve))
    this.#output.write(`${JSON.stringify({ id, method, params, sessionId })}\0`)
    const { error, result } = await Promise.race([answer, this.#ended])
    this.#waiting.delete(id)
    if (error !== undefined) throw new Error(`${method}: ${error.message}`)
    return result as A
  }

  /** A new tab that shows a file. */
  async open(path: string, { policy = true, scripts = true, theme, width }: View): Promise<Tab> {
    const { targetId } = await this.call<{ targetId: string }>("Target.createTarget", { url: "about:blank" })
    const attached = await this.call<{ sessionId: string }>("Target.attachToTarget", { targetId, flatten: true })
    const { sessionId } = attached
    const tab = new Tab(this, sessionId)
    let loaded = (): void => undefined
    const load = new Promise<void>((resolve) => (loaded = resolve))
    this.#listeners.set(sessionId, ({ method, params }) => {
      if (method === "Network.requestWillBeSent") tab.requests.push(params?.request?.url ?? "")
      if (method === "Page.javascriptDialogOpening") tab.dialogs.push(params?.message ?? "")
      if (method === "Page.loadEventFired") loaded()
    })
    for (const domain of ["Page", "Network"]) await tab.call(`${domain}.enable`)
    await tab.call("Emulation.setScriptExecutionDisabled", { value: !scripts })
    await tab.call("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: false })
    await tab.call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: theme }] })
    await tab.call("Page.setBypassCSP", { enabled: !policy })
    await tab.call("Page.navigate", { url: `file://${path}` })
    await Promise.race([load, this.#ended])
    return tab
  }
}

/** A page that is shown. */
export class Tab {
  /** URLs that the page asked for, its own first. */
  readonly requests: Array<string> = []
  readonly dialogs: Array<string> = []
  readonly #browser: Browser
  readonly #session: string

  constructor(browser: Browser, session: string) {
    this.#browser = browser
    this.#session = session
  }

  call<A>(method: string, params?: object): Promise<A> {
    return this.#browser.call(method, params, this.#session)
  }

  /** The value of a JavaScript expression in the page; what a promise resolves to. */
  async evaluate<A>(expression: string): Promise<A> {
    const { exceptionDetails, result } = await this.call<Evaluated<A>>("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true
    })
    if (exceptionDetails !== undefined) {
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    }
    return result.value as A
  }
}

/**
 * What is wrong with how a page is laid out, by the boxes that its texts and controls have on the screen: they lie over
 * each other, or reach beyond the page. What a scrolling box cuts off is not on the screen.
 */
export const LAYOUT_FAULTS = `(() => {
  const page = document.documentElement
  const faults = page.scrollWidth > page.clientWidth ? ["the page is " + page.scrollWidth + " wide"] : []
  const clip = new Map()
  const visible = (element) => {
    if (element === null || element === page) return { left: -1e6, top: -1e6, right: 1e6, bottom: 1e6 }
    if (clip.has(element)) return clip.get(element)
    const outer = visible(element.parentElement)
    const box = element.getBoundingClientRect()
    const cuts = !["visible", "clip"].includes(getComputedStyle(element).overflowX)
    const inner = cuts ? cut(outer, box) : outer
    clip.set(element, inner)
    return inner
  }
  const cut = (a, b) => ({
    left: Math.max(a.left, b.left), top: Math.max(a.top, b.top),
    right: Math.min(a.right, b.right), bottom: Math.min(a.bottom, b.bottom)
  })
  const area = (box) => Math.max(0, box.right - box.left) * Math.max(0, box.bottom - box.top)
  const boxes = []
  const add = (element, rect, what) => {
    const box = cut(visible(element), rect)
    if (area(box) > 1) boxes.push({ ...box, element, what })
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node = texts.nextNode(); node !== null; node = texts.nextNode()) {
    const element = node.parentElement
    if (node.textContent.trim() === "" || !element.checkVisibility()) continue
    const range = document.createRange()
    range.selectNodeContents(node)
    for (const rect of range.getClientRects()) add(element, rect, node.textContent.trim().slice(0, 40))
  }
  for (const control of document.querySelectorAll("input, canvas, svg")) {
    if (control.checkVisibility()) add(control, control.getBoundingClientRect(), control.tagName)
  }
  for (const { left, right, what } of boxes) {
    if (left < -1 || right > page.clientWidth + 1) faults.push(what + " is at " + left + " to " + right)
  }
  boxes.sort((a, b) => a.top - b.top)
  for (const [at, one] of boxes.entries()) {
    for (let next = at + 1; next < boxes.length && boxes[next].top < one.bottom - 1; next++) {
      const other = boxes[next]
      if (one.element.contains(other.element) || other.element.contains(one.element)) continue
      const both = cut(one, other)
      if (both.right - both.left > 1 && both.bottom - both.top > 1) faults.push(one.what + " lies over " + other.what)
    }
  }
  return { faults: faults.slice(0, 20), boxes: boxes.length }
})()`
