import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { createReadStream, createWriteStream } from "node:fs"
import { finished } from "node:stream/promises"
import { withLock } from "../../src/core/EntryLock.ts"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { saveImage } from "../../src/memory/SaveImage.ts"
import { compileBpf, compileKindsFill, HostLive, scratch } from "./guest.ts"

export const IMAGE_MIB = 256

/**
 * The path of a memory image: a guest of Debian's 6.12 kernel with 2 CPUs, in which test/bpf-src/fill.sh ran. Memory that
 * low has no hole, so a file offset is a physical address. Made by the first test that asks, kept until the run ends.
 */
export const guestImage: Effect.Effect<string> = Effect.suspend(() => {
  const path = `${process.env["KTSTR_TEST_WORKSPACE"]}/guest.mem`
  // two files that ask at once would boot two guests
  return withLock(`${path}.lock`, "exclusive", "10 minutes")(makeImage(path))
}).pipe(Effect.provide(HostLive), Effect.orDie)

const makeImage = (path: string) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    if (yield* files.exists(path)) return path
    const directory = yield* scratch
    const objects = [
      ...(yield* compileBpf(directory, "types", "kinds", "congestion")),
      yield* compileKindsFill(directory)
    ]
    const fill = new URL("../bpf-src/fill.sh", import.meta.url).pathname
    const { kernel } = yield* bootAndFreeze({
      kernel: "debian:6.12-cloud",
      cpus: 2,
      memoryMib: IMAGE_MIB,
      includes: ["/usr/sbin/bpftool", ...objects, fill],
      script: "sh /include-files/fill.sh",
      timeout: "3 minutes"
    })
    yield* saveImage(kernel.memory, `${path}.part`)
    yield* files.rename(`${path}.part`, path)
    return path
  }).pipe(Effect.scoped)

/** Copy the first `bytes` of a file. */
export const copyStart = (from: string, to: string, bytes: number) =>
  Effect.promise(() => finished(createReadStream(from, { end: bytes - 1 }).pipe(createWriteStream(to))))
