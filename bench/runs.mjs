// The kernels that runs are measured on, and the schedulers for them: the one that `npm run kernel` builds, and stock ones
// with what `npm run schedulers` builds.
import * as Effect from "effect/Effect"
import { KernelResolver } from "ktstr"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { Host } from "./images.mjs"
import { cpuSeconds, here, measure } from "./measure.mjs"

/** By name: its id, whose schedulers, and how many CPU seconds of the host the smoke test may take. */
const KERNELS = {
  built: { id: "6.12", schedulers: undefined, limit: 10 },
  "7.3": { id: "debian:7.3-cloud", schedulers: "7.3", limit: 15 },
  "6.18": { id: "debian:6.18-cloud", schedulers: "7.3", limit: 15 }
}

/** A kernel's id and the path of its scx_simple, or why one of them is missing. */
const of = (name) =>
  Effect.gen(function*() {
    const { id, schedulers } = KERNELS[name]
    const { image } = yield* (yield* KernelResolver).resolve(id)
    const entry = dirname(image)
    const scheduler = join(dirname(dirname(entry)), "schedulers", schedulers ?? basename(entry), "scx_simple")
    return existsSync(scheduler) ? { words: [id, scheduler] } : { skipped: `there is no ${scheduler}` }
  }).pipe(
    Effect.catchTag("KernelNotFound", ({ message }) => Effect.succeed({ skipped: message })),
    Effect.provide(Host),
    Effect.runPromise
  )

/** What smoke.mjs measures of a run; `skipped`: why it cannot. */
export const watched = async (name) => {
  const { skipped, words } = await of(name)
  return skipped === undefined ? measure(1, "smoke.mjs", ...words) : { skipped }
}

/** By name of the kernel: CPU seconds of `ktstr run`, whole, and the parts of it that smoke.mjs measures, or why there are none. */
export const smokes = async () => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-bench-runs-"))
  const results = []
  try {
    for (const [name, { limit }] of Object.entries(KERNELS)) {
      const { skipped, words: [id, scheduler] = [KERNELS[name].id] } = await of(name)
      if (skipped !== undefined) {
        results.push({ name, id, skipped })
        continue
      }
      const words = ["run", "--mode", "exact", "--kernel", id, "--scheduler", scheduler, "--runs-dir", directory]
      const total = cpuSeconds(process.execPath, here("../dist/bin/ktstr.cjs"), ...words)
      results.push({ name, id, limit, total, parts: await watched(name) })
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
  return results
}
