// A map's entries as NDJSON to /dev/null: entries a second, and how far memory that is not the mapped image grew. With the
// word "two" a second thread helps, whose start counts.
import * as Effect from "effect/Effect"
import { openImage } from "ktstr"
import { ndjsonRecords, secondThread } from "ktstr/bpf"
import * as Native from "ktstr/native"
import { openSync, readFileSync, writeSync } from "node:fs"

const [path, name, threads] = process.argv.slice(2)
const anonymousMB = () => Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "latin1"))[1]) / 1024
await Effect.gen(function*() {
  const { header, maps } = yield* openImage(path)
  const readers = yield* Effect.forEach(yield* maps.find(name), maps.reader)
  const out = openSync("/dev/null", "w")
  const before = anonymousMB()
  let most = before
  let pieces = 0
  const start = performance.now()
  const second = threads === "two" ? yield* secondThread(readers, Infinity) : undefined
  if (threads === "two" && second === undefined) throw new Error("there is one CPU")
  for (const piece of ndjsonRecords({ header, readers, programs: [], problems: [], limit: Infinity, second })) {
    for (let at = 0; at < piece.length;) at += writeSync(out, piece, at)
    if (++pieces % 64 === 0) most = Math.max(most, anonymousMB())
  }
  const ms = performance.now() - start
  most = Math.max(most, anonymousMB())
  let entries = 0
  for (const walk = readers[0].walk(); walk.next();) entries++
  console.log(JSON.stringify({ ms, entries, perSecond: entries / ms * 1000, grownMB: most - before }))
}).pipe(Effect.scoped, Effect.provide(Native.layer), Effect.runPromise)
