import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { bootAndFreeze } from "../../../src/Ktstr.ts"
import { compileBpf, HostLive, scratch } from "../../support/guest.ts"
import { accessorContract } from "./AccessorContract.ts"
import { subjectLayer } from "./Subject.ts"

const CPUS = 2

const frozen = Effect.gen(function*() {
  const objects = yield* compileBpf(yield* scratch, "contract", "contract-ops")
  const fill = new URL("../../bpf-src/contract-fill.sh", import.meta.url).pathname
  return yield* bootAndFreeze({
    kernel: "debian:6.12-cloud",
    cpus: CPUS,
    memoryMib: 512,
    includes: ["/usr/sbin/bpftool", ...objects, fill],
    script: "sh /include-files/contract-fill.sh",
    timeout: "4 minutes"
  })
})

accessorContract(
  "a frozen guest",
  subjectLayer({ possibleCpus: CPUS, consistency: "frozen", queues: "all" }, frozen).pipe(Layer.provide(HostLive))
)
