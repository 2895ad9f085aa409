import * as FileSystem from "@effect/platform/FileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { build } from "esbuild"
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { crowdedGuests, saveCrowdedGuest } from "../support/crowdedGuest.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { needsScx } from "../support/scx.ts"
import type { Line, Report } from "./hostile/Line.ts"

/** Cases tried on the image of each guest, three of them 10,200; and the seed that with the image repeats them. */
const CASES = Number(process.env["KTSTR_HOSTILE_CASES"] ?? 2000)
const SEED = Number(process.env["KTSTR_HOSTILE_SEED"] ?? 1)
/** An image that a failed run kept, to be tried instead of new guests; and the only case to try. */
const IMAGE = process.env["KTSTR_HOSTILE_IMAGE"]
const CASE = process.env["KTSTR_HOSTILE_CASE"]
/** A case that computes longer hangs, in seconds of a CPU's time: others may have taken the CPU. The slowest take one. */
const DEADLINE = 30
/**
 * So much more memory than reading an undamaged image may damage cost, in MiB: `READ_LIMIT` bounds what is copied at once
 * (64 MiB), parsed BTF takes as much again, the garbage of cases before may still be there (705 was seen).
 */
const MOST_GROWTH = 1024
/** V8's heap, in MiB: a case that needs more ends the process. */
const HEAP = 1024

interface Failure {
  readonly number: number
  readonly what: string
}

interface Worked {
  readonly reports: ReadonlyArray<Report>
  readonly failures: ReadonlyArray<Failure>
}

/** What a process has computed so far; proc_pid_stat(5), fields 14 and 15, in hundredths of a second. */
const cpuSeconds = (pid: number | undefined): number => {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\) /s, "").split(" ")
    return (Number(fields[11]) + Number(fields[12])) / 100
  } catch {
    return 0 // it has ended
  }
}

/** Try every `step`th case from `first` on in a process of its own, which a case that hangs ends. */
const work = (program: string, image: string, first: number, step: number, end: number): Effect.Effect<Worked> =>
  Effect.async<Worked>((resume) => {
    const args = [`--max-old-space-size=${HEAP}`, "--enable-source-maps", program, image, SEED, first, step, end]
    const child = spawn(process.execPath, args.map(String), { stdio: ["ignore", "pipe", "pipe"] })
    const reports: Array<Report> = []
    const failures: Array<Failure> = []
    let errors = ""
    let trying = -1
    let hung = false
    let spoke = true
    let spent = 0
    const watch = setInterval(() => {
      const seconds = cpuSeconds(child.pid)
      if (spoke) spent = seconds
      spoke = false
      if (seconds - spent < DEADLINE) return
      hung = true
      child.kill("SIGKILL")
    }, 500)
    child.stderr.on("data", (bytes: Buffer) => (errors = (errors + bytes.toString()).slice(-4000)))
    createInterface(child.stdout).on("line", (text) => {
      spoke = true
      const line: Line = JSON.parse(text)
      if ("trying" in line) trying = line.trying
      else if ("failure" in line) failures.push({ number: line.number, what: `${line.task}: ${line.failure}` })
      else reports.push(line)
    })
    child.on("close", (code, signal) => {
      clearInterval(watch)
      const ended = (what: string): void => void failures.push({ number: trying, what })
      if (hung) ended(`it hangs: ${DEADLINE} s were not enough`)
      else if (code !== 0) ended(`its process ended with ${code ?? signal}: ${errors}`)
      resume(Effect.succeed({ reports, failures }))
    })
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** The part of the worker that vitest does not run for it: plain JavaScript. */
const bundle = (directory: string) =>
  Effect.promise(async () => {
    const outfile = join(directory, "worker.mjs")
    await build({
      entryPoints: [new URL("hostile/worker.ts", import.meta.url).pathname],
      outfile,
      bundle: true,
      platform: "node",
      format: "esm",
      sourcemap: "inline",
      logLevel: "warning"
    })
    return outfile
  })

/** Damage the image in all ways that are asked for; one on which something fails is kept. */
const damage = (image: string) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const program = yield* bundle(yield* scratch)
    const workers = CASE === undefined ? Math.min(availableParallelism(), 4) : 1
    const worked = yield* Effect.all(
      Array.from({ length: workers }, (_, worker) =>
        CASE === undefined
          ? work(program, image, worker, workers, CASES)
          : work(program, image, Number(CASE), 1, Number(CASE) + 1)),
      { concurrency: "unbounded" }
    )
    const failures = worked.flatMap(({ failures }) => failures)
    const [failure] = failures
    if (failure !== undefined) {
      const kept = IMAGE ?? join(tmpdir(), `ktstr-hostile-${SEED}.mem`)
      if (IMAGE === undefined) yield* files.copyFile(image, kept)
      const settings = `KTSTR_HOSTILE_IMAGE=${kept} KTSTR_HOSTILE_SEED=${SEED} KTSTR_HOSTILE_CASE=${failure.number}`
      assert.fail([
        `${failures.length} cases failed; try the first again by ${settings} npm test -- test/bpf/hostile`,
        ...failures.slice(0, 5).map(({ number, what }) => `case ${number}, ${what}`)
      ].join("\n\n"))
    }
    return worked.flatMap(({ reports }) => reports)
  })

const check = (reports: ReadonlyArray<Report>) => {
  const sum = (of: (report: Report) => number): number => reports.map(of).reduce((sum, n) => sum + n, 0)
  const [{ round, tasks }] = reports
  const tried = sum(({ tries }) => Object.values(tries).reduce((sum, n) => sum + n, 0))
  const changed = sum(({ changed }) => changed)
  const [slowest] = reports.map(({ slowest }) => slowest).toSorted((a, b) => b.millis - a.millis)
  const grown = Math.max(...reports.map(({ grownMib }) => grownMib))
  const peak = Math.max(...reports.map(({ peakMib }) => peakMib))
  process.stdout.write(
    `${tried} damaged images, ${tasks.length} ways to read them; ${changed} told otherwise; slowest: case ${slowest.number}, `
      + `${slowest.task}, ${slowest.millis} ms; most memory: ${peak} MiB, ${grown} more than for the whole image\n`
  )
  assert.deepStrictEqual(
    reports.flatMap(({ notUndone }) => notUndone),
    [],
    "they tell otherwise with all damage undone"
  )
  assert.isBelow(grown, MOST_GROWTH, "MiB more than for the whole image")
  if (CASE !== undefined) return
  assert.strictEqual(tried, CASES)
  assert.isAtLeast(changed, tried / 3, "cases that told otherwise")
  if (CASES < round) return
  const tries = (task: string) => sum((report) => report.tries[task] ?? 0)
  assert.deepStrictEqual(tasks.filter((task) => tries(task) === 0), [], "never tried")
}

describe("reading damaged memory neither throws, nor hangs, nor grows", () => {
  if (IMAGE !== undefined) {
    it.scopedLive(
      `${IMAGE}, seed ${SEED}`,
      () => Effect.map(damage(IMAGE), check).pipe(Effect.provide(HostLive)),
      900_000
    )
    return
  }
  for (const [name, guest] of Object.entries(crowdedGuests)) {
    it.scopedLive(`${name}, ${CASES} images, seed ${SEED}`, (context) =>
      Effect.gen(function*() {
        if (guest.kernel === "sched_ext") yield* Effect.promise(() => needsScx(context))
        const image = join(yield* scratch, "guest.mem")
        yield* saveCrowdedGuest(guest, image)
        check(yield* damage(image))
      }).pipe(Effect.provide(HostLive)), 900_000)
  }
})
