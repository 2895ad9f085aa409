import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { saveImage } from "../../src/memory/SaveImage.ts"
import { compileBpf, HostLive, scratch } from "./guest.ts"

const sources = new URL("../bpf-src/", import.meta.url).pathname

/**
 * The path of a memory image: a 384 MiB guest of Debian's 6.12 kernel with the maps of test/bpf-src filled, on 2 CPUs.
 * Made by the first test that asks, kept until the run ends.
 */
export const typesImage: Effect.Effect<string> = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const path = `${process.env["KTSTR_TEST_WORKSPACE"]}/types.mem`
  if (yield* files.exists(path)) return path
  const objects = yield* compileBpf(yield* scratch, "types", "kinds")
  const { kernel } = yield* bootAndFreeze({
    kernel: "debian:6.12-cloud",
    cpus: 2,
    memoryMib: 384,
    includes: ["/usr/sbin/bpftool", ...objects, `${sources}fill.sh`],
    script: "sh /include-files/fill.sh",
    timeout: "3 minutes"
  })
  yield* saveImage(kernel.memory, `${path}.part`)
  yield* files.rename(`${path}.part`, path)
  return path
}).pipe(Effect.scoped, Effect.provide(HostLive), Effect.orDie)
