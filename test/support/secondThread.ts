import * as Effect from "effect/Effect"
import type { MapReader } from "../../src/bpf/MapReader.ts"
import { type SecondThread, secondThread } from "../../src/bpf/report/WalkThread.ts"

/** Parts that the thread may have ready. */
const READY = 8

/**
 * A second thread that helps with small maps too, in parts of some `partBytes` of JSON. It has begun with each of them before
 * the first thread does; `shared` names them.
 */
export const eagerThread = (readers: ReadonlyArray<MapReader>, partBytes: number) =>
  Effect.map(secondThread(readers, Infinity, { least: 1, partBytes }), (second) => {
    if (second === undefined) {
      throw new Error("a second thread is started on two CPUs or more, for maps that it can read")
    }
    const thread = { ...second, shared: [] as Array<string> }
    const share: SecondThread["share"] = (task) => {
      second.share(task)
      thread.shared.push(task.name)
      const { count, words } = task.parts
      // the first word counts the parts that were taken
      for (let waits = 0; Atomics.load(words, 0) < Math.min(READY, count); waits++) {
        if (waits === 10_000) throw new Error("the second thread takes no parts")
        Atomics.wait(words, 0, Atomics.load(words, 0), 1)
      }
    }
    return Object.assign(thread, { share })
  })
