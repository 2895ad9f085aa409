import * as Effect from "effect/Effect"
import type { MapReader } from "../../src/bpf/MapReader.ts"
import { type SecondThread, secondThread } from "../../src/bpf/report/WalkThread.ts"

/** Small maps are shared too, in parts of a few entries. */
const SMALL = { least: 1, partBytes: 512 }
/** Parts that the thread may have ready. */
const READY = 8

/** A second thread for small maps that has begun each of them before the first does, and how many maps it was told of. */
export const eagerThread = (readers: ReadonlyArray<MapReader>) =>
  Effect.map(secondThread(readers, Infinity, SMALL), (second) => {
    if (second === undefined) {
      throw new Error("a second thread is started on two CPUs or more, for maps that it can read")
    }
    const thread = { ...second, shared: 0 }
    const share: SecondThread["share"] = (task) => {
      second.share(task)
      thread.shared++
      const { count, words } = task.parts
      // the first word counts the parts that were taken
      for (let waits = 0; Atomics.load(words, 0) < Math.min(READY, count); waits++) {
        if (waits === 10_000) throw new Error("the second thread takes no parts")
        Atomics.wait(words, 0, Atomics.load(words, 0), 1)
      }
    }
    return Object.assign(thread, { share })
  })
