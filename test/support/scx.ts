import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { basename, dirname, join } from "node:path"
import type { TestContext } from "vitest"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import { HostLive } from "./guest.ts"

/** The kernel is there, but not the schedulers that go with it. */
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
  const directory = join(dirname(root), "schedulers", key)
  if (!(yield* (yield* FileSystem.FileSystem).exists(directory))) return yield* new NoSchedulers({ directory })
  return { root, key, release, scheduler: (name: "scx_simple" | "scx_qmap") => join(directory, name) }
}).pipe(Effect.provide(HostLive))

/**
 * For `beforeEach`: where `scx` is not built, tests are skipped and say why; with `KTSTR_REQUIRE_SCX=1` in the environment
 * they fail.
 */
export const needsScx = async (context: TestContext): Promise<void> => {
  const absent = (error: { readonly message: string }) =>
    Effect.succeed(`${error.message}; \`npm run kernel\` builds all that is needed`)
  const why = await Effect.runPromise(
    Effect.catchTags(Effect.as(scx, undefined), { KernelNotFound: absent, NoSchedulers: absent })
  )
  if (why === undefined) return
  if (process.env["KTSTR_REQUIRE_SCX"] === "1") throw new Error(why)
  context.skip(why)
}
