import * as Effect from "effect/Effect"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { saveImage } from "../../src/memory/SaveImage.ts"
import { compileAttach, compileBpf, compileKindsFill, compileSpecialFill, HostLive, scratch } from "./guest.ts"
import { scx } from "./scx.ts"

interface Crowded {
  readonly kernel: "debian:6.1-cloud" | "debian:6.12-cloud" | "sched_ext"
  /** What is loaded, of test/bpf-src. */
  readonly sources: ReadonlyArray<string>
  /** Files for the guest, and the shell commands that use them. */
  readonly includes: ReadonlyArray<string>
  readonly script: string
}

const SPECIAL = ["bpf-src/fill.sh", "bpf-src/special-fill.sh"]
const FILL = "sh /include-files/fill.sh"
/** The last that a guest does: one of its programs sleeps for ever, and nothing attaches any more. */
const FILL_SPECIAL = "sh /include-files/special-fill.sh"
const attached = {
  includes: [...SPECIAL, "bpf-src/programs-fill.sh"],
  script: `${FILL}; sh /include-files/programs-fill.sh; ${FILL_SPECIAL}`
}

/** Guests that have, together, maps of every type and programs attached in every way. */
export const crowdedGuests = {
  "Debian 6.12": {
    kernel: "debian:6.12-cloud",
    sources: ["types", "kinds", "congestion", "programs", "special", "objects"],
    ...attached
  },
  "Debian 6.1": {
    kernel: "debian:6.1-cloud",
    sources: ["types", "kinds", "congestion", "programs", "special-6.1"],
    ...attached
  },
  "the kernel with sched_ext, scheduled by scx_qmap": {
    kernel: "sched_ext",
    sources: ["types", "kinds", "special", "objects"],
    includes: [...SPECIAL, "scx/guest.sh"],
    script: `${FILL}; . /include-files/guest.sh; start scx_qmap >/dev/null; kill -STOP $scheduler; ${FILL_SPECIAL}`
  }
} as const satisfies Readonly<Record<string, Crowded>>

/**
 * Save the memory of a guest. It is low enough to have no hole: a file offset is a physical address.
 */
export const saveCrowdedGuest = ({ includes, kernel, script, sources }: Crowded, path: string) =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const built = kernel === "sched_ext" ? yield* scx : undefined
    const guest = yield* bootAndFreeze({
      kernel: built?.key ?? kernel,
      cpus: 3,
      memoryMib: 256,
      includes: [
        "/usr/sbin/bpftool",
        ...(built === undefined ? [] : [built.scheduler("scx_qmap")]),
        ...(yield* compileBpf(directory, ...sources)),
        ...(yield* Effect.all([compileKindsFill(directory), compileSpecialFill(directory), compileAttach(directory)])),
        ...includes.map((file) => new URL(`../${file}`, import.meta.url).pathname)
      ],
      script: `set -e; ${script}`,
      timeout: "4 minutes"
    })
    yield* saveImage(guest.kernel.memory, path)
  }).pipe(Effect.scoped, Effect.provide(HostLive))
