import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { basename, dirname, join } from "node:path"
import type { TestContext } from "vitest"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import { HostLive } from "./guest.ts"

/** The kernel is there, but not the programs that go with it. */
class NoSchedulers extends Schema.TaggedError<NoSchedulers>("test/NoSchedulers")("NoSchedulers", {
  directory: Schema.String
}) {
  override get message() {
    return `there is no directory ${this.directory}`
  }
}

/**
 * What scripts/kernel.sh builds: a kernel with sched_ext, the newest in the cache of 6.12's source and the kconfig of now,
 * and schedulers of the same source. Tells the cache's directory, the kernel's key and release, and the path of a scheduler.
 */
export const scx = Effect.gen(function*() {
  const { image, release } = yield* (yield* KernelResolver).resolve("6.12")
  const entry = dirname(image)
  const [root, key] = [dirname(entry), basename(entry)]
  const program = yield* built<"scx_simple" | "scx_qmap">(root, key)
  return { root, key, release, scheduler: program }
}).pipe(Effect.provide(HostLive))

/**
 * Debian's stock 7.3 and what scripts/schedulers.sh builds for stock kernels: the schedulers of 7.3's source, and its
 * bpftool, newer than the distribution's. Tells the cache's directory, the kernel's key and release, and the paths.
 */
export const stockScx = Effect.gen(function*() {
  const { image, release } = yield* (yield* KernelResolver).resolve("debian:7.3-cloud")
  const entry = dirname(image)
  const [root, key] = [dirname(entry), basename(entry)]
  const program = yield* built<"scx_simple" | "scx_qmap" | "scx_flatcg" | "scx_central" | "bpftool">(root, "7.3")
  return { root, key, release, scheduler: program, bpftool: program("bpftool") }
}).pipe(Effect.provide(HostLive))

/** The paths of what was built into a directory of `schedulers`, beside the cache of kernels. */
const built = <Name extends string>(root: string, name: string) =>
  Effect.gen(function*() {
    const directory = join(dirname(root), "schedulers", name)
    if (!(yield* (yield* FileSystem.FileSystem).exists(directory))) return yield* new NoSchedulers({ directory })
    return (program: Name) => join(directory, program)
  })

/** Skip tests and say why if what they need is not built; with `KTSTR_REQUIRE_SCX=1` in the environment they fail. */
const skipWithout = async <E extends { readonly _tag: string; readonly message: string }>(
  needed: Effect.Effect<unknown, E>,
  script: "kernel" | "schedulers",
  context: TestContext
): Promise<void> => {
  const why = await Effect.runPromise(Effect.matchEffect(needed, {
    onSuccess: () => Effect.void,
    onFailure: (error) =>
      error._tag === "KernelNotFound" || error._tag === "NoSchedulers"
        ? Effect.succeed(`${error.message}; \`npm run ${script}\` builds all that is needed`)
        : Effect.fail(error)
  }))
  if (why === undefined) return
  if (process.env["KTSTR_REQUIRE_SCX"] === "1") throw new Error(why)
  context.skip(why)
}

/** For `beforeEach`: tests that need `scx`. */
export const needsScx = (context: TestContext): Promise<void> => skipWithout(scx, "kernel", context)

/** For `beforeEach`: tests that need `stockScx`. */
export const needsStockScx = (context: TestContext): Promise<void> => skipWithout(stockScx, "schedulers", context)
