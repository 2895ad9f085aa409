import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { once } from "node:events"
import { Worker } from "node:worker_threads"
import { giveBackThread, readyThreads, takeThread } from "../../../src/kvm/native/IdleThreads.ts"

const program =
  `const { parentPort } = require("node:worker_threads"); parentPort.on("message", (n) => parentPort.postMessage(n))`
const make = () => new Worker(program, { eval: true })

const answers = (worker: Worker) =>
  Effect.promise(async () => {
    worker.postMessage(7)
    const [answer] = await Promise.race([once(worker, "message"), once(worker, "exit").then(() => ["it has ended"])])
    return answer
  })

it.live("a thread that is taken again lives as long as it is wanted, whoever gave it back before", () =>
  Effect.gen(function*() {
    const first = yield* Effect.scoped(Effect.gen(function*() {
      yield* readyThreads(1, make)
      const worker = takeThread(make)
      assert.strictEqual(yield* answers(worker), 7)
      giveBackThread(worker)
      return worker
    }))
    const again = takeThread(make)
    assert.strictEqual(again, first)
    yield* Effect.sleep("1500 millis")
    assert.strictEqual(yield* answers(again), 7)
    giveBackThread(again)
    yield* Effect.promise(() => once(again, "exit"))
  }))
