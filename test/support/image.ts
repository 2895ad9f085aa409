import * as Effect from "effect/Effect"
import { createReadStream, createWriteStream } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"
import { finished } from "node:stream/promises"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { compileBpf, HostLive, scratch } from "./guest.ts"

export const IMAGE_MIB = 256

/**
 * A directory with `guest.mem`, the raw memory of a frozen 6.12 guest in which test/bpf-src/fill.sh ran; it goes with the
 * scope. Memory that low has no hole, so a file offset is a physical address.
 */
export const guestImage = Effect.gen(function*() {
  const directory = yield* scratch
  const image = join(directory, "guest.mem")
  yield* Effect.scoped(Effect.gen(function*() {
    const objects = yield* compileBpf(yield* scratch, "types", "kinds")
    const fill = new URL("../bpf-src/fill.sh", import.meta.url).pathname
    const { kernel } = yield* bootAndFreeze({
      kernel: "debian:6.12-cloud",
      memoryMib: IMAGE_MIB,
      includes: ["/usr/sbin/bpftool", ...objects, fill],
      script: "sh /include-files/fill.sh",
      timeout: "3 minutes"
    })
    yield* Effect.promise(async () => {
      const file = await open(image, "w")
      await file.truncate(IMAGE_MIB * 2 ** 20)
      for (const { bytes, start } of kernel.memory.regions) await file.write(bytes, 0, bytes.length, start)
      await file.close()
    })
  }))
  return { directory, image }
}).pipe(Effect.provide(HostLive))

/** Copy the first `bytes` of a file. */
export const copyStart = (from: string, to: string, bytes: number) =>
  Effect.promise(() => finished(createReadStream(from, { end: bytes - 1 }).pipe(createWriteStream(to))))
