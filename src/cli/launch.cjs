#!/usr/bin/env node
// The command's entry. Help and mistyped names are answered at once (help/answer.ts); start.cjs runs the rest.
"use strict"
const { readFileSync } = require("node:fs")

/** Below this, V8 aborts the process in the middle of something instead of failing: 1.5 GiB. */
const ADDRESS_SPACE = 1.5 * 2 ** 30

/** The limit of the address space (`ulimit -v`), in bytes; NaN where there is none, or no /proc. */
const addressSpace = () => {
  try {
    return Number(/^Max address space +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1])
  } catch {
    return NaN
  }
}

if (addressSpace() < ADDRESS_SPACE) {
  const mib = Math.floor(addressSpace() / 2 ** 20)
  process.stderr.write(`ktstr: the address space is limited to ${mib} MiB; Node needs 1536: raise the limit (ulimit -v)\n`)
  process.exit(3)
}

if (!require("./help.cjs").answer(require("./commands.json"), process.argv.slice(2))) require("./start.cjs")
