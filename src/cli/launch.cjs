#!/usr/bin/env node
// The command's entry. Runs main.cjs (src/cli/bin.ts and all it imports, bundled) with the machine code that V8 made of it
// when it was built: compiling the bundle anew would take half of a short run's time. Another V8 refuses that code and
// compiles. CommonJS, because Node takes no such code for ES modules.
"use strict"
const { readFileSync } = require("node:fs")
const { createRequire } = require("node:module")
const { Script } = require("node:vm")

const filename = require.resolve("./main.cjs")

/** The bundle as a function; `cachedData` is V8's code, undefined to compile. */
const load = (cachedData) =>
  new Script(`(function(require,importModule){${readFileSync(filename, "latin1")}\n})`, { filename, cachedData })

/** Code that comes out of V8's cache cannot import(), so it is given what can. */
const run = (script) => script.runInThisContext()(createRequire(filename), (name) => import(name))

if (require.main === module) {
  let cachedData
  try {
    cachedData = readFileSync(`${filename}.code`)
  } catch {
    // Not there: compile.
  }
  run(load(cachedData))
} else {
  // The build runs it this way, and takes V8's code when the run has ended.
  const script = load(undefined)
  exports.code = () => script.createCachedData()
  exports.run = () => run(script)
}
