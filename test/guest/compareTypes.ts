import * as FileSystem from "@effect/platform/FileSystem"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { listPrograms } from "../../src/bpf/guest/programs/ProgramWalk.ts"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { bootSeconds, parseCapture, SAY_BOOTED } from "../support/capture.ts"
import { compileBpf, HostLive, scratch } from "../support/guest.ts"
import { compareMaps } from "./compareMaps.ts"
import { comparePrograms } from "./comparePrograms.ts"

/** What was compared on a kernel. */
export interface Counts {
  readonly bootSeconds: number
  readonly maps: number
  readonly entries: number
  readonly programs: number
  readonly links: number | "none made"
}

/**
 * The maps of types.bpf.c and the programs that fill them, against bpftool in the guest: `steps` for kernels without
 * bpf_loop, as 5.10; for guests that only have busybox and bpftool.
 */
export const compareTypes = (
  kernel: string,
  source: "types" | "steps",
  bpftool = "/usr/sbin/bpftool"
): Effect.Effect<Counts> =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const consoleFile = `${directory}/console`
    const sources = new URL("../bpf-src/", import.meta.url).pathname
    const snapshot = yield* bootAndFreeze({
      kernel,
      cpus: 2,
      includes: [bpftool, ...yield* compileBpf(directory, source), `${sources}fill.sh`, `${sources}capture.sh`],
      script: `${SAY_BOOTED} && sh /include-files/fill.sh && date +%s >/tmp/capture/now &&
        cat /proc/uptime >/tmp/capture/uptime && sh /include-files/capture.sh`,
      consoleFile,
      timeout: "10 minutes"
    })
    const printed = parseCapture(yield* (yield* FileSystem.FileSystem).readFileString(consoleFile))
    const counts = yield* compareMaps(snapshot, printed)
    const { items, problems } = yield* Effect.provideService(listPrograms, GuestKernel, snapshot.kernel)
    assert.deepStrictEqual(problems, [])
    comparePrograms(items, printed, false) // kept elsewhere before 5.12: group bpf-program-stats
    return { ...counts, bootSeconds: bootSeconds(printed), programs: items.length, links: "none made" as const }
  }).pipe(Effect.scoped, Effect.provide(HostLive), Effect.orDie)
