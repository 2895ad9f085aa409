// One exact run of the smoke test under scx_simple, watched from outside: what its QEMU used of the host's CPUs until the
// agent was there, then until the scheduler was attached, then until the end; how long the guest's init took to be ready;
// and how long a read of a worker's counters takes while the guest runs.
//     node bench/smoke.mjs KERNEL SCHEDULER
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { KernelResolver } from "ktstr"
import { prepareRun, smoke } from "ktstr/harness"
import { Qemu } from "ktstr/kvm"
import * as Native from "ktstr/native"
import { ANNOUNCEMENT, Mailbox } from "../dist/harness/agent/Mailbox.js"
import { decodeRecords } from "../dist/harness/agent/Records.js"
import { cpuSecondsOf } from "./measure.mjs"

const [kernel, scheduler] = process.argv.slice(2)
const READS = 2000
const LOOK = "20 millis"

/** Milliseconds that a read of a worker's counters takes, of a hundred reads all but one. */
const counterMillis = (mailbox) => {
  const times = Array.from({ length: READS }, (_, read) => {
    const start = performance.now()
    mailbox.counters(read % mailbox.workers)
    return performance.now() - start
  })
  return times.toSorted((a, b) => a - b)[Math.floor(READS * 0.99)]
}

const measured = Effect.gen(function*() {
  const run = yield* prepareRun({
    test: "bench",
    kernel,
    scenario: smoke,
    scheduler: { name: "scx_simple", binary: scheduler },
    mode: "exact"
  })
  const by = { by: "emulation", why: "the bench asks for it" }
  const vm = yield* Qemu.bootQemu(run.spec, by, { program: run.mode.qemu.program, emulation: run.emulation })
  const early = yield* Effect.fork(vm.memory)
  const [, frame, crc] = ANNOUNCEMENT.exec(yield* vm.awaitReport(ANNOUNCEMENT))
  const agent = cpuSecondsOf(vm.pid)
  const memory = yield* Fiber.join(early)
  const mailbox = yield* Mailbox.open(memory, Number.parseInt(frame, 16), Number.parseInt(crc, 16))
  const records = () => decodeRecords(mailbox.log()).records

  const over = yield* Effect.fork(Effect.either(vm.ended))
  let attached
  let counter
  let all = agent
  while (over.unsafePoll() === null) {
    all = cpuSecondsOf(vm.pid) ?? all
    if (attached === undefined && records().some(({ kind, what }) => kind === "scheduler" && what === "attached")) {
      attached = all
    }
    if (attached !== undefined) counter ??= counterMillis(mailbox)
    yield* Effect.sleep(LOOK)
  }
  const hello = records().find(({ kind }) => kind === "hello")
  const done = records().find(({ kind }) => kind === "done")
  if (done === undefined) return yield* Effect.fail(new Error(`${kernel}: the run did not come to its end`))
  return {
    ready: (hello.atNs - hello.initNs) / 1e9,
    counter,
    agent,
    attach: attached - agent,
    rest: all - attached,
    guest: done.atNs / 1e9
  }
})

const Host = KernelResolver.layer.pipe(Layer.provideMerge(Native.layer), Layer.provideMerge(NodeContext.layer))
console.log(JSON.stringify(await measured.pipe(Effect.scoped, Effect.provide(Host), Effect.runPromise)))
