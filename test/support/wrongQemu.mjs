/**
 * A QEMU that is broken in the way of its first argument: `wrongQemu.mjs WAY QEMU'S-ARGUMENTS…`. It has QEMU's descriptors
 * (src/kvm/qemu/QemuProcess.ts `fd`): 1 console, 2 complaints, 3 monitor, 4 report, 7 guest memory. Where its way says
 * nothing else it is a good one: it greets, its guest's script ends with 0, and it stops, shows its memory and goes on when
 * it is told to.
 */
import { spawn } from "node:child_process"
import { fstatSync, ftruncateSync, writeSync } from "node:fs"
import { Socket } from "node:net"

const [way, ...words] = process.argv.slice(2)
const MEMORY = 7
const [monitor, report] = [3, 4].map((fd) => new Socket({ fd, readable: true, writable: true }))
const console = new Socket({ fd: 1, readable: false, writable: true })
for (const socket of [monitor, console, report]) socket.on("error", () => undefined)

/** Stay, whatever happens; a QEMU that hears SIGTERM goes on too. */
setInterval(() => undefined, 2 ** 30)
process.on("SIGTERM", () => undefined)

const kill = (signal) => process.kill(process.pid, signal)
const line = (value, then) => monitor.write(`${JSON.stringify(value)}\n`, then)
/** Write the text for ever, as fast as it is read. */
const flood = (socket, text) => {
  const bytes = Buffer.from(text)
  const more = () => socket.write(bytes, () => setImmediate(more))
  more()
}

/** The layout of the guest's memory, as `info mtree -f` shows it. */
const range = (from, last, name, offset) =>
  `  ${[from, last].map((at) => at.toString(16).padStart(16, "0")).join("-")} (prio 0, ram): ${name} @${
    offset.toString(16).padStart(16, "0")
  }\n`
const mtree = (...ranges) => `FlatView #0\n AS "memory", root: system\n${ranges.join("")}`
const ram = /id=(\w+)/.exec(words.find((word) => word.startsWith("memory-backend")))?.[1] ?? "ram0"

const layouts = {
  "a layout without memory": () => "",
  "a layout that is a number": () => 42,
  "a layout that is prose": () => "no idea",
  "a layout of 60,000 others' ranges": () =>
    mtree(...Array.from({ length: 60_000 }, (_, at) => range(at * 8192, at * 8192 + 4095, "rom", at * 8192))),
  "a layout that overlaps": () => mtree(range(0, 0xfffffff, ram, 0), range(0x1000, 0xfffffff, ram, 0)),
  "a layout beyond the memory": () => mtree(range(0, 2 ** 40 - 1, ram, 0))
}

/** What comes before the greeting; true where there is none after it. */
const beginnings = {
  "ends at once": () => process.exit(0),
  "ends with a complaint": () => {
    writeSync(2, "qemu-system-x86_64: \x1b]0;PWNED\x07 bad\n")
    process.exit(1)
  },
  "is killed at once": () => kill("SIGKILL"),
  "is stopped at once": () => kill("SIGSTOP"),
  "says nothing": () => true,
  "closes its monitor": () => {
    monitor.destroy()
    return true
  },
  "speaks garbage": () => monitor.write("\0\xff{{{nonsense\x1b[31m\n"),
  "greets as another server": () => monitor.write("RFB 003.008\n"),
  "speaks a line without an end": () => {
    flood(monitor, "A".repeat(2 ** 16))
    return true
  },
  "speaks JSON of 8 million brackets": () => monitor.write(`${"[".repeat(8e6)}\n`),
  "tells 100,000 events first": () => monitor.write("{\"event\":\"X\",\"timestamp\":{}}\n".repeat(1e5)) && false,
  "complains without an end": () => {
    const complaints = new Socket({ fd: 2, readable: false, writable: true })
    complaints.on("error", () => undefined)
    flood(complaints, "x".repeat(2 ** 16))
  },
  "leaves a child behind": () => {
    const child = spawn("/bin/sleep", ["1000"], { stdio: ["ignore", 1, 2, "ignore", 4] })
    child.on("spawn", () => kill("SIGKILL"))
    return true
  }
}

/** What comes once the monitor is greeted; true where the script's end is not reported. */
const guests = {
  "ends before its script does": () => process.exit(0),
  "is killed before its script ends": () => kill("SIGKILL"),
  "is stopped before its script ends": () => kill("SIGSTOP"),
  "says nothing of its guest": () => true,
  "reports a status that no shell has": () => report.write("ktstr exit 256\nktstr exit x\n"),
  "reports without an end": () => {
    flood(report, "B".repeat(2 ** 16))
    return true
  },
  "cuts off its memory": () => {
    try {
      ftruncateSync(MEMORY, 0)
      writeSync(2, "its memory is cut off\n")
    } catch (error) {
      writeSync(2, `${error.code}\n`)
    }
  }
}

/** Answers to a command of the monitor; where there is none, the good one. */
const answers = {
  "refuses all commands": { "qmp_capabilities": (id) => line({ id, error: { class: "X", desc: "not \x1b[31m today" } }) },
  "refuses to stop": { "stop": (id) => line({ id, error: { class: "X", desc: "no \x1b[31m way" } }) },
  "does not answer a stop": { "stop": () => undefined },
  "ends when it is to stop": { "stop": () => process.exit(3) },
  "is killed when it is to stop": { "stop": () => kill("SIGKILL") },
  "is stopped when it is to stop": { "stop": () => kill("SIGSTOP") },
  "closes its monitor when it is to stop": { "stop": () => monitor.destroy() },
  "speaks garbage when it is to stop": { "stop": () => monitor.write("\0\xff{{{nonsense\n") },
  "answers another question": { "stop": () => line({ id: 999_999, return: {} }) },
  "answers a thousand times": {
    "stop": (id) => {
      for (let count = 0; count < 1000; count++) line({ id, return: {} })
    }
  },
  "never stops": { "query-status": (id) => line({ id, return: { running: true, status: "running" } }) },
  "has a state that is none": { "query-status": (id) => line({ id, return: { running: "perhaps" } }) },
  "does not go on": { "cont": () => undefined },
  "ends when it is to go on": { "cont": () => process.exit(4) }
}

const good = (command, id) => {
  if (command === "qmp_capabilities") return line({ id, return: {} }, runGuest)
  if (command === "query-status") return line({ id, return: { running: false, status: "paused" } })
  if (command !== "human-monitor-command") return line({ id, return: {} })
  const whole = () => mtree(range(0, fstatSync(MEMORY).size - 1, ram, 0))
  line({ id, return: (layouts[way] ?? whole)() })
}

const runGuest = () => {
  console.write("hello from \x1b]0;PWNED\x07 the console\r\n")
  if (guests[way]?.() === true) return
  report.write("ktstr up\nktstr exit 0\n")
  console.write("ktstr: the script ended with status 0\r\n")
}

const serve = () => {
  let text = ""
  monitor.on("data", (bytes) => {
    const lines = (text + bytes).split("\n")
    text = lines.pop()
    for (const each of lines) {
      const { execute, id } = JSON.parse(each)
      const answer = answers[way]?.[execute]
      if (answer === undefined) good(execute, id)
      else answer(id)
    }
  })
}

const known = [beginnings, guests, answers, layouts, { "is good": true }].some((ways) => Object.hasOwn(ways, way))
if (!known) throw new Error(`not a way to be wrong: ${way}`)
const silent = beginnings[way]?.() ?? false
if (silent !== true) {
  line({ QMP: { version: {}, capabilities: [] } })
  serve()
}
