import { describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { execFile } from "node:child_process"
import { copyFileSync, readFileSync } from "node:fs"
import { promisify } from "node:util"
import { openLive } from "../../../src/bpf/live/OpenLive.ts"
import { compileBpf, scratch } from "../../support/guest.ts"
import { HostLive, hostScript, refused } from "../live/support.ts"
import { accessorContract } from "./AccessorContract.ts"
import { subjectLayer } from "./Subject.ts"

const live = Effect.gen(function*() {
  const directory = yield* scratch
  yield* compileBpf(directory, "contract", "contract-ops")
  copyFileSync(new URL("../../bpf-src/contract-fill.sh", import.meta.url), `${directory}/contract-fill.sh`)
  yield* hostScript(directory, "OBJECTS=/mnt sh /mnt/contract-fill.sh >&2")
  yield* Effect.addFinalizer(() =>
    Effect.promise(() => promisify(execFile)("bpftool", ["struct_ops", "unregister", "name", "ct_ops"]))
  )
  return yield* openLive()
})

/** "0-7" */
const possible = readFileSync("/sys/devices/system/cpu/possible", "latin1").trim()

describe.skipIf(refused !== undefined)("live", () => {
  accessorContract(
    "the running kernel",
    subjectLayer({
      possibleCpus: Number(possible.split("-").at(-1)) + 1,
      consistency: "racing",
      queues: "next"
    }, live).pipe(Layer.provide(HostLive))
  )
})
