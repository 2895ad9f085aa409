// Goes into the command with --require: when Node was ready to run it, when it looked at its image, and when it wrote the
// first record of an entry. The milliseconds between them go to file descriptor 3.
"use strict"
const fs = require("node:fs")
const { performance } = require("node:perf_hooks")

const { fstatSync, write, writeSync } = fs
let opened

/** An image is the only file of more than 64 MiB. */
fs.fstatSync = (fd, ...rest) => {
  const stat = fstatSync(fd, ...rest)
  if (stat.size > 2 ** 26) opened ??= performance.now()
  return stat
}

const see = (fd, bytes) => {
  if (fd !== 1 || !Buffer.from(bytes).includes("\"record\":\"entry\"")) return
  const now = performance.now()
  const { bootstrapComplete } = performance.nodeTiming
  writeSync(3, JSON.stringify({ ms: now - opened, start: opened - bootstrapComplete }))
  Object.assign(fs, { fstatSync, write, writeSync })
}
fs.write = (fd, bytes, ...rest) => {
  see(fd, bytes)
  return write(fd, bytes, ...rest)
}
fs.writeSync = (fd, bytes, ...rest) => {
  see(fd, bytes)
  return writeSync(fd, bytes, ...rest)
}
