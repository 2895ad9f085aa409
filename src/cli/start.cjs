// Runs main.cjs (src/cli/bin.ts and all it imports, bundled) with the code that V8 made of it in an earlier run by
// the same Node: compiling the bundle anew would take half of a short run's time. That code is kept in the user's cache
// directory, for it fits one version of V8 only. CommonJS, because Node takes no such code for ES modules.
"use strict"
const { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } = require("node:fs")
const { createRequire } = require("node:module")
const { homedir } = require("node:os")
const { join } = require("node:path")
const { cachedDataVersionTag, setFlagsFromString } = require("node:v8")
const { Script } = require("node:vm")

const filename = require.resolve("./main.cjs")
const source = readFileSync(filename, "latin1")

/** Node's modules that main.cjs requires, which scripts/build.mjs writes here. */
const MODULES = []

/** The newest version that was tried: a V8 that has dropped a flag says so on stderr. */
const NEWEST_NODE = 24

// A run of any command fills the young generation many times while it is as small as V8 makes it, 1 MiB: let it grow to
// its 16 MiB in one step. Node's modules come first, for their code in Node is V8's with the flags of its start.
for (const module of MODULES) require(module)
if (Number.parseInt(process.versions.node) <= NEWEST_NODE) setFlagsFromString("--semi-space-growth-factor=16")

/** The hash of main.cjs, which scripts/build.mjs writes here: hashing it takes a tenth of a short run's own time. */
const BUNDLE = "not built"

/** The command that is run: each has its own code, for code that a run does not need takes time to load too. */
const word = /^[a-z]+$/.exec(process.argv[2])?.[0] ?? "ktstr"

/** Where code is kept, and under which name: code of another bundle, or of a V8 with other flags, never gets this one. */
const cache = process.env.XDG_CACHE_HOME || join(homedir(), ".cache")
const directory = join(cache, "ktstr", "code")
const name = `${BUNDLE}-${cachedDataVersionTag().toString(16)}-${word}`

/** The code of an earlier run; undefined where there is none. Only a directory of this user's counts: code is run. */
const kept = () => {
  try {
    const { mode, uid } = statSync(directory)
    return uid === process.getuid() && (mode & 0o022) === 0 ? readFileSync(join(directory, name)) : undefined
  } catch {
    return undefined // the first run, or no home
  }
}

const WEEK = 7 * 24 * 3600 * 1000 // ms

/** The exit code of a mistyped command: there is no end of these, and their code is not worth keeping. */
const WRONG_USAGE = 2

/** Keep the code of this run, and drop what is a week old: a newer version has other code. Without a place for it each run compiles: no error. */
const keep = (script) => {
  try {
    // one by one: Node's recursive mkdir spins for ever below /proc
    for (const part of [cache, join(cache, "ktstr"), directory]) if (!existsSync(part)) mkdirSync(part, { mode: 0o700 })
    for (const other of readdirSync(directory)) {
      if (Date.now() - statSync(join(directory, other)).mtimeMs > WEEK) rmSync(join(directory, other))
    }
    const part = join(directory, `${name}.${process.pid}`)
    writeFileSync(part, script.createCachedData(), { mode: 0o600 })
    renameSync(part, join(directory, name))
  } catch {
    // a read-only or full home
  }
}

const cachedData = kept()
const script = new Script(source, { filename, cachedData })
if (cachedData === undefined || script.cachedDataRejected) process.on("exit", (status) => status !== WRONG_USAGE && keep(script))

// Code that comes out of V8's cache cannot import(), so it is given what can.
script.runInThisContext()(createRequire(filename), (specifier) => import(specifier))
