// How numbers are taken: fresh processes, medians, rivals in turn.
import { execFileSync, spawnSync } from "node:child_process"
import { openSync, readFileSync } from "node:fs"

export const here = (name) => new URL(name, import.meta.url).pathname

export const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]

/** Run a measuring script in fresh processes; each prints one JSON object. Gives the median of every field. */
export const measure = (runs, script, ...words) => {
  const results = Array.from(
    { length: runs },
    () => JSON.parse(execFileSync(process.execPath, [here(script), ...words], { encoding: "utf8" }))
  )
  return Object.fromEntries(Object.keys(results[0]).map((key) => [key, median(results.map((result) => result[key]))]))
}

/** As `measure` of two measuring scripts, run in turn, each a script with its words; and the median of a.ms / b.ms. */
export const measurePair = (runs, a, b) => {
  const turns = Array.from({ length: runs }, () => [measure(1, ...a), measure(1, ...b)])
  const medians = (side) =>
    Object.fromEntries(Object.keys(turns[0][side]).map((key) => [key, median(turns.map((turn) => turn[side][key]))]))
  return { a: medians(0), b: medians(1), ratio: median(turns.map(([x, y]) => x.ms / y.ms)) }
}

/**
 * Median wall milliseconds of two commands, run in turn so that a noisy machine troubles both, and the median of a / b.
 * The first pair only warms the caches.
 */
export const pair = (runs, a, b) => {
  const quiet = openSync("/dev/null", "w")
  const time = ([file, ...words]) => {
    const start = performance.now()
    const { status } = spawnSync(file, words, { stdio: ["ignore", quiet, quiet] })
    if (status !== 0) throw new Error(`${file} ${words.join(" ")} ended with ${status}`)
    return performance.now() - start
  }
  const times = Array.from({ length: runs + 1 }, () => [time(a), time(b)]).slice(1)
  return {
    a: median(times.map(([x]) => x)),
    b: median(times.map(([, y]) => y)),
    ratio: median(times.map(([x, y]) => x / y))
  }
}

/** Columns of /proc/PID/stat behind the name in parentheses: proc_pid_stat(5). `waited` is of the children that ended. */
const CPU_COLUMNS = { own: [11, 12], waited: [13, 14] }

/** CPU seconds of a process, in the kernel's hundredths; undefined: it is not there. */
export const cpuSecondsOf = (pid, whose = "own") => {
  let stat
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1")
  } catch {
    return undefined
  }
  const columns = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return CPU_COLUMNS[whose].reduce((ticks, at) => ticks + Number(columns[at]), 0) / 100
}

/** CPU seconds of a command and of all that it started and waited for. */
export const cpuSeconds = (file, ...words) => {
  const before = cpuSecondsOf("self", "waited")
  execFileSync(file, words, { stdio: ["ignore", "ignore", "inherit"] })
  return cpuSecondsOf("self", "waited") - before
}

/** What `make` gives, made when it is asked for first. */
export const once = (make) => {
  let made
  return () => made ??= make()
}
