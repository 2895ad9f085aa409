import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { join } from "node:path"
import { tarballKey } from "../../../src/core/kernels/cache/CacheKey.ts"
import { KernelResolver } from "../../../src/core/kernels/KernelResolver.ts"
import { Host, image, put, store, temporary, withVariables } from "../kernelEntries.ts"

const Live = Layer.provideMerge(KernelResolver.layer, Host)

const resolve = (id: string) => Effect.flatMap(KernelResolver, (resolver) => resolver.resolve(id))

describe("the resolver", () => {
  it.scoped("goes where each form of id leads", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const key = Either.getOrThrow(tarballKey("6.99.1"))
      const git = yield* store(root, "from-git", {
        release: "6.99.1",
        source: { kind: "git", url: "/srv/linux", ref: "main", commit: "0123456" }
      })
      const name = "linux-image-6.99.1+deb12-cloud-amd64"
      const debian = yield* store(root, `debian-${name}_6.99.1-1`, {
        release: "6.99.1+deb12-cloud-amd64",
        source: { kind: "debian", package: name, version: "6.99.1-1" },
        kconfigHash: null
      })
      const tarball = yield* store(root, key, { release: "6.99.1" })

      const leads: ReadonlyArray<readonly [directory: string, ids: ReadonlyArray<string>]> = [
        [tarball, [
          "6.99",
          "6.99.1",
          " 6.99.1\n",
          "6.98..6.99.1",
          "6.98..=6.99",
          key,
          tarball,
          join(tarball, "bzImage")
        ]],
        [git, ["git+/srv/linux#main", "from-git"]],
        [debian, ["debian:6.99-cloud", `debian:${name}`, "debian:6.99*-cloud-amd64", `debian-${name}_6.99.1-1`]]
      ]
      yield* Effect.gen(function*() {
        for (const [directory, ids] of leads) {
          for (const id of ids) assert.strictEqual((yield* resolve(id)).image, join(directory, "bzImage"), id)
        }
        assert.strictEqual((yield* resolve("debian:6.99-cloud")).source, `Debian package ${name} 6.99.1-1`)
        assert.strictEqual((yield* Effect.flip(resolve("6.98")))._tag, "KernelNotFound")
        assert.strictEqual((yield* Effect.flip(resolve("6.99.1..6.98")))._tag, "KernelIdInvalid")
        assert.strictEqual((yield* Effect.flip(resolve("./6.98")))._tag, "KernelNotFound")
      }).pipe(withVariables({ KTSTR_CACHE_DIR: root }))
    }).pipe(Effect.provide(Live)))

  it.scoped("finds a kernel without an id", () =>
    Effect.gen(function*() {
      const file = put(join(yield* temporary, "bzImage"), image("6.99.0-test"))
      const found = yield* Effect.flatMap(KernelResolver, (resolver) => resolver.find).pipe(
        withVariables({ KTSTR_KERNEL: file })
      )
      assert.deepStrictEqual(found, Option.some({ release: "6.99.0-test", image: file, source: file }))
    }).pipe(Effect.provide(Live)))
})
