#!/usr/bin/env node
// The command's entry. Runs main.cjs (src/cli/bin.ts and all it imports, bundled) with the machine code that V8 made of it in
// an earlier run by the same Node: compiling the bundle anew would take half of a short run's time. That code is kept in
// the user's cache directory, for it fits one version of V8 only. CommonJS, because Node takes no such code for ES modules.
"use strict"
const { createHash } = require("node:crypto")
const { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } = require("node:fs")
const { createRequire } = require("node:module")
const { homedir } = require("node:os")
const { join } = require("node:path")
const { Script } = require("node:vm")

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

const filename = require.resolve("./main.cjs")
const source = readFileSync(filename)

/** Where code is kept, and under which name: code of another bundle, or of a V8 with other flags, never gets this one. */
const cache = process.env.XDG_CACHE_HOME || join(homedir(), ".cache")
const directory = join(cache, "ktstr", "code")
const name = createHash("sha256")
  .update(JSON.stringify([process.version, process.arch, process.execArgv, process.env.NODE_OPTIONS])).update(source)
  .digest("hex").slice(0, 32)

/** The code of an earlier run; undefined where there is none. Only a directory of this user's counts: code is run. */
const kept = () => {
  try {
    const { mode, uid } = statSync(directory)
    return uid === process.getuid() && (mode & 0o022) === 0 ? readFileSync(join(directory, name)) : undefined
  } catch {
    return undefined // the first run, or no home
  }
}

const MONTH = 30 * 24 * 3600 * 1000 // ms

/** Keep the code of this run, and drop what is a month old. Without a place for it each run compiles: no error. */
const keep = (script) => {
  try {
    // one by one: Node's recursive mkdir spins for ever below /proc
    for (const part of [cache, join(cache, "ktstr"), directory]) if (!existsSync(part)) mkdirSync(part, { mode: 0o700 })
    for (const other of readdirSync(directory)) {
      if (Date.now() - statSync(join(directory, other)).mtimeMs > MONTH) rmSync(join(directory, other))
    }
    const part = join(directory, `${name}.${process.pid}`)
    writeFileSync(part, script.createCachedData(), { mode: 0o600 })
    renameSync(part, join(directory, name))
  } catch {
    // a read-only or full home
  }
}

const cachedData = kept()
const script = new Script(`(function(require,importModule){${source.latin1Slice()}\n})`, { filename, cachedData })
if (cachedData === undefined || script.cachedDataRejected) process.on("exit", () => keep(script))

// Code that comes out of V8's cache cannot import(), so it is given what can.
script.runInThisContext()(createRequire(filename), (specifier) => import(specifier))
