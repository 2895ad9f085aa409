/**
 * A program for KilledStores.test.ts, which kills it: `storeLoop ROOT KEY [store|clean] [COUNT]` stores entry KEY again and
 * again with ever other content (and with `clean` empties the cache in between), and prints a line after each.
 */
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { randomBytes, randomInt } from "node:crypto"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { cleanCache } from "../../src/core/kernels/cache/CleanCache.ts"
import { storeKernel } from "../../src/core/kernels/cache/KernelCache.ts"
import * as NativeKoffi from "../../src/core/NativeKoffi.ts"

const [root, key, mode, count] = process.argv.slice(2)

const fill = (directory: string) =>
  Effect.sync(() => {
    writeFileSync(join(directory, "bzImage"), randomBytes(randomInt(1, 2 ** 18)))
    writeFileSync(join(directory, "vmlinux"), randomBytes(randomInt(1, 2 ** 18)))
    return {
      source: { kind: "tarball" as const, version: "6.99", from: `pid ${process.pid}` },
      release: "6.99.0",
      image: "bzImage",
      vmlinux: "vmlinux",
      config: null,
      kconfigHash: null,
      extraKconfigHash: null
    }
  })

const round = Effect.gen(function*() {
  yield* storeKernel(root, key, fill, { replace: true })
  process.stdout.write("stored\n")
  if (mode === "clean") yield* cleanCache(root, {})
})

Effect.repeatN(round, Number(count ?? 1e9) - 1).pipe(
  Effect.provide(Layer.merge(NodeContext.layer, NativeKoffi.layer)),
  NodeRuntime.runMain
)
