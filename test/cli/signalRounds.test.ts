import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { serve } from "../core/httpServer.ts"
import { tarballOf } from "../core/miniKernel.ts"
import { complaints, KTSTR, place, type Ran, until } from "../support/cli.ts"
import { debianMirror, mayMount } from "../support/debianMirror.ts"
import { guestImage } from "../support/image.ts"
import { kernelImage } from "../support/kernels.ts"

const ROUNDS = Number(process.env["KTSTR_SIGNAL_ROUNDS"] ?? 40)
const SEED = Number(process.env["KTSTR_SIGNAL_SEED"] ?? 1)
/** A command that has not ended this long after its signal hangs. */
const HANG_SECONDS = 60

const numbers = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 } as const
type Signal = keyof typeof numbers
const SIGNALS: ReadonlyArray<Signal> = ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"]

/** Numbers in [0, 1), the same for the same seed: mulberry32. */
const makeDice = (seed: number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A command that is interrupted. */
interface Subject {
  readonly name: string
  readonly args: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly wrap?: (...words: ReadonlyArray<string>) => ReadonlyArray<string>
  /** Whether a QEMU of it can be killed and stopped. */
  readonly boots?: boolean
  /** The file in its working directory that it leaves: JSON, whole whenever it is there. */
  readonly makes?: string
  /** Whether a later run of it is cheap. */
  readonly again?: boolean
}

interface Place {
  readonly cwd: string
  readonly mark: string
  readonly env: Readonly<Record<string, string | undefined>>
}

const ended = async (child: ChildProcess): Promise<Ran> => {
  let [stdout, stderr] = ["", ""]
  child.stdout?.on("data", (bytes: Buffer) => stdout += bytes.toString("latin1"))
  child.stderr?.on("data", (bytes: Buffer) => stderr += bytes.toString("latin1"))
  const [code, signal] = await once(child, "close")
  return { code: code ?? 128 + (numbers[signal as Signal] ?? 0), stdout, stderr }
}

const start = ({ args, boots, env, wrap }: Subject, here: Place): ChildProcess => {
  const marked = boots === true ? ["--cmdline", here.mark] : []
  const words = [process.execPath, KTSTR, ...args, ...marked]
  const [program, ...rest] = wrap === undefined ? words : wrap(...words)
  return spawn(program, rest, {
    cwd: here.cwd,
    env: { ...process.env, KTSTR_TEST_MARK: here.mark, ...here.env, ...env },
    stdio: ["ignore", "pipe", "pipe"]
  })
}

/** The processes, besides this one, whose arguments or environment have the mark. */
const marked = (mark: string): ReadonlyArray<number> =>
  readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid).map(Number).filter((pid) =>
    ["cmdline", "environ"].some((file) => {
      try {
        return readFileSync(`/proc/${pid}/${file}`, "latin1").includes(mark)
      } catch {
        return false // it has ended
      }
    })
  )

const qemuOf = (mark: string): number | undefined =>
  marked(mark).find((pid) => {
    try {
      return readFileSync(`/proc/${pid}/comm`, "latin1").startsWith("qemu-system")
    } catch {
      return false
    }
  })

const names = (directory: string): ReadonlyArray<string> => existsSync(directory) ? readdirSync(directory) : []

/** What one round does, as numbers: the same for the same seed. */
interface Round {
  readonly subject: Subject
  readonly at: "ktstr" | "QEMU"
  readonly signal: Signal | "SIGSTOP"
  /** Of the time that the command takes. */
  readonly moment: number
}

const roundsOf = (subjects: ReadonlyArray<Subject>): ReadonlyArray<Round> => {
  const dice = makeDice(SEED)
  return Array.from({ length: ROUNDS }, (_, number): Round => {
    const subject = subjects[number % subjects.length]
    const [which, signal, moment] = [dice(), dice(), dice()]
    return subject.boots === true && which < 0.2
      ? { subject, at: "QEMU", signal: which < 0.14 ? "SIGKILL" : "SIGSTOP", moment }
      : { subject, at: "ktstr", signal: SIGNALS[Math.floor(signal * SIGNALS.length)], moment }
  })
}

/** The command runs to its end in a place of its own; how long it takes, in ms. */
const calibrated = (subject: Subject) =>
  Effect.gen(function*() {
    const here = yield* place
    const before = performance.now()
    const ran = yield* Effect.promise(() => ended(start(subject, here)))
    assert.deepStrictEqual([ran.code, complaints(ran)], [0, []], `${subject.name}: ${ran.stderr}`)
    return performance.now() - before
  }).pipe(Effect.scoped)

/** What a QEMU's end, or its standstill, is told as. */
const ENDS =
  /^ktstr: (the guest has ended \(.*|cannot boot .*: QEMU ended with .*|not done within \d+ s; .*|the guest did not .*)$/

const check = (round: Round, ran: Ran, acted: boolean, title: string): void => {
  const lines = complaints(ran)
  if (ran.code === 0 || !acted && round.signal !== "SIGSTOP") {
    assert.deepStrictEqual([ran.code, lines], [0, []], title)
  } else if (round.at === "QEMU") {
    assert.deepStrictEqual([ran.code, lines.length], [1, 1], `${title}: ${ran.stderr}`)
    assert.match(lines[0], ENDS, title)
  } else {
    const signal = 128 + numbers[round.signal as Signal]
    const right = round.signal === "SIGKILL" ? [signal] : [130, signal]
    assert.include(right, ran.code, `${title}: ${ran.stderr}`)
    assert.deepStrictEqual(lines, [], title)
  }
}

/** A signal may come between the file's name and the process's end: then a whole file stays of a command that was ended. */
const checkFile = (path: string, ran: Ran, title: string): void => {
  if (ran.code === 0) assert.isTrue(existsSync(path), title)
  if (existsSync(path)) assert.doesNotThrow(() => JSON.parse(readFileSync(path, "utf8")), undefined, undefined, title)
}

/** Interrupt the command; nothing of it is left, and what it shares with later runs serves them. */
const run = (round: Round, millis: number, title: string) =>
  Effect.gen(function*() {
    const { at, moment, signal, subject } = round
    const here = yield* place
    mkdirSync(join(here.cwd, "tmp"))
    const own = { ...here, env: { ...here.env, TMPDIR: join(here.cwd, "tmp") } }
    const ran = yield* Effect.promise(async () => {
      const limit = signal === "SIGSTOP" ? ["--timeout", "20"] : []
      const child = start({ ...subject, args: [...subject.args, ...limit] }, own)
      const running = ended(child)
      await new Promise((resolve) => setTimeout(resolve, moment * millis))
      if (at === "QEMU") await Promise.race([running, until("QEMU runs", () => qemuOf(here.mark) !== undefined)])
      const pid = at === "QEMU" ? qemuOf(here.mark) : child.pid
      let acted = child.exitCode === null && child.signalCode === null && pid !== undefined
      try {
        if (acted && pid !== undefined) process.kill(pid, signal)
      } catch {
        acted = false
      }
      let late: NodeJS.Timeout | undefined
      const hangs = new Promise<never>((_, reject) =>
        late = setTimeout(() => {
          for (const one of marked(here.mark)) process.kill(one, "SIGKILL")
          reject(new Error(`${title}: it hangs`))
        }, HANG_SECONDS * 1000)
      )
      const result = await Promise.race([running, hangs])
      clearTimeout(late)
      return { ...result, acted }
    })
    check(round, ran, ran.acted, title)
    yield* Effect.promise(() => until(`${title}: no process of it`, () => marked(here.mark).length === 0, 20))
    assert.deepStrictEqual(names(own.env.TMPDIR), [], title)
    const left = names(here.cwd).filter((name) => name !== "tmp" && name !== ".cache" && name !== subject.makes)
    assert.deepStrictEqual(left, [], title)
    if (subject.makes !== undefined) checkFile(join(here.cwd, subject.makes), ran, title)

    const cache = join(here.cwd, ".cache/ktstr/kernels")
    if (!existsSync(cache)) return
    const temporary = () => names(cache).filter((name) => name.startsWith(".tmp-"))
    if (signal !== "SIGKILL") assert.deepStrictEqual(temporary(), [], title)
    const later = (args: ReadonlyArray<string>, like: Partial<Subject> = {}) =>
      Effect.promise(() => ended(start({ name: "later", ...like, args }, own)))
    const listed = yield* later(["kernel", "list", "--json"])
    const states = JSON.parse(listed.stdout).entries.map(({ state }: { readonly state: string }) => state)
    assert.deepStrictEqual(states, states.map(() => "valid"), title)
    if (subject.again === true) {
      const again = yield* later(subject.args, subject)
      const wrong = complaints(again).filter((line) => !line.startsWith("ktstr: info: "))
      assert.deepStrictEqual([again.code, wrong], [0, []], `${title}, again: ${again.stderr}`)
    }
    // what SIGKILL left in the cache is the next run's to remove
    const cleaned = yield* later(["kernel", "clean", "--corrupt-only"])
    assert.deepStrictEqual([cleaned.code, complaints(cleaned), temporary()], [0, [], []], title)
  }).pipe(Effect.scoped)

const subjects = Effect.gen(function*() {
  const image = yield* guestImage
  const kernel = yield* kernelImage("6.12")
  const scratch = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-rounds-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
  )
  const tarball = readFileSync(tarballOf(scratch, join(scratch, "linux-6.99.3.tar.xz"), "6.99.3"))
  const server = yield* serve((_, response) => void response.end(tarball))
  const vm = ["--kernel", kernel, "--memory-mib", "192", "--engine", "qemu"]
  const fetch: ReadonlyArray<Subject> = mayMount
    ? yield* Effect.map(debianMirror, ({ env, id, wrap }) => [
      { name: "kernel fetch", args: ["kernel", "fetch", id], env, wrap, again: true }
    ])
    : []
  const all: ReadonlyArray<Subject> = [
    { name: "dump of an image", args: ["dump", "--image", image, "--json"] },
    {
      name: "dump of an image to a file",
      args: ["dump", "--image", image, "--out", "dump.json"],
      makes: "dump.json"
    },
    { name: "dump of a guest", args: ["dump", ...vm, "--json", "--exec", "true"], boots: true },
    { name: "vm run", args: ["vm", "run", ...vm, "--exec", "seq 1 1000"], boots: true },
    ...fetch,
    {
      name: "kernel build",
      args: ["kernel", "build", "--tarball", `${server.url}/linux-6.99.3.tar.xz`],
      again: true
    }
  ]
  return all
})

const without = mayMount ? "" : " (without kernel fetch, which needs root)"
describe(`${ROUNDS} commands${without} that are interrupted at random moments (KTSTR_SIGNAL_SEED=${SEED})`, () => {
  it.scopedLive("end with the right exit code, and leave nothing behind", () =>
    Effect.gen(function*() {
      const all = yield* subjects
      const millis = new Map(
        yield* Effect.forEach(all, (subject) => Effect.map(calibrated(subject), (took) => [subject, took] as const))
      )
      const rounds = roundsOf(all)
      const faults: Array<string> = []
      yield* Effect.forEach(rounds, (round, number) => {
        const { at, moment, signal, subject } = round
        const wait = Math.round(moment * millis.get(subject)!)
        const title = `round ${number} of seed ${SEED}: ${subject.name}, ${signal} to ${at} after ${wait} ms`
        return Effect.catchAllCause(run(round, millis.get(subject)!, title), (cause) =>
          Effect.sync(() => void faults.push(Cause.pretty(cause))))
      }, { concurrency: 2, discard: true })
      assert.deepStrictEqual(faults, [])
    }), 60_000 + ROUNDS * 60_000)
})
