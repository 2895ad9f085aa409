// The program of the second thread: `WalkThread.ts` starts it. It is without Schema, which takes a thread 45 ms to load:
// `FormatError` does not need it, and schemas in modules that come along are marked pure, so that the bundle drops them.
import { parentPort } from "node:worker_threads"
import { type SharedHash, sharedHashWalk } from "../guest/walks/HashWalk.ts"
import { codecOfData } from "../report/CodecData.ts"
import { EntryJson } from "../report/EntryJson.ts"
import { type WalkTask, writePartsAhead } from "../report/WalkParts.ts"

parentPort?.on("message", ({ cpus, key, parts, value, walk }: WalkTask) => {
  const json = new EntryJson({ cpus, key: codecOfData(key), value: codecOfData(value) })
  writePartsAhead(parts, sharedHashWalk(walk as SharedHash), json)
})
