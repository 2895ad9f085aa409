#!/usr/bin/env node
import { writeSync } from "node:fs"
import packageJson from "../../package.json" with { type: "json" }
import { helpText } from "./help.ts"
import { understand } from "./usage.ts"
import { visibleLine } from "./visible.ts"

/** Write a short answer to a descriptor; the exit code is 0 unless it could not be written. */
const say = (fd: 1 | 2, text: string): number => {
  const bytes = new TextEncoder().encode(text)
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(fd, bytes, at)
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : error
      if (code === "EAGAIN") continue // somebody made the terminal non-blocking
      if (fd === 2 || code === "EPIPE") return 0
      say(2, `ktstr: cannot write to stdout: ${String(code)}; is the disk full?\n`)
      return 1
    }
  }
  return 0
}

const main = async (): Promise<void> => {
  const understood = understand(process.argv.slice(2))
  switch (understood.kind) {
    case "help":
      process.exitCode = say(1, helpText(understood.path))
      return
    case "version":
      process.exitCode = say(1, `${packageJson.version}\n`)
      return
    case "wrong": {
      const help = `${understood.path.map(({ name }) => name).join(" ")} --help`
      say(2, `ktstr: ${visibleLine(understood.problem)} (${help} shows the usage)\n`)
      process.exitCode = 2
      return
    }
    case "run": {
      const running = watchSignals()
      const { run } = await import("./main.ts")
      run(understood.argv, packageJson.version)
      running()
    }
  }
}

/** A stage that cannot be broken off, such as a file system that hangs, must not keep a user who wants to leave. */
const PATIENCE_MILLIS = 15_000
/** npm passes on a Ctrl-C that the terminal has sent us too: so close together, two signals are one. */
const SAME_MILLIS = 1000

/**
 * Before the program runs, a signal ends the process: there is nothing to release. Then the program takes care of the
 * first one, and a second one ends the process at once. The listeners stay for all of that time: Node forgets a signal
 * that came while the program was being loaded, when they are exchanged.
 * @returns what says that the program runs
 */
const watchSignals = (): () => void => {
  let isRunning = false
  let first: number | undefined
  const received = () => {
    if (!isRunning) process.exit(130)
    if (first === undefined) {
      first = Date.now()
      setTimeout(() => process.kill(process.pid, "SIGKILL"), PATIENCE_MILLIS).unref()
    } else if (Date.now() - first > SAME_MILLIS) {
      process.exit(130)
    }
  }
  process.on("SIGINT", received).on("SIGTERM", received)
  process.on("SIGHUP", () => process.emit("SIGTERM", "SIGTERM"))
  return () => {
    isRunning = true
  }
}

await main()
