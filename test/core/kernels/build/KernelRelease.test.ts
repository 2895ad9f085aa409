import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { createHash } from "node:crypto"
import { readdirSync } from "node:fs"
import { kernelRelease } from "../../../../src/core/kernels/build/KernelRelease.ts"
import { parseKernelVersion } from "../../../../src/core/kernels/KernelVersion.ts"
import { serve } from "../../httpServer.ts"
import { Host, temporary, withVariables } from "../../kernelEntries.ts"

const Live = Layer.merge(Host, FetchHttpClient.layer)

const sha256 = (name: string) => createHash("sha256").update(name).digest("hex")

/** A list as kernel.org has it: signed, of all kinds of files, and in the order of their names. */
const list = [
  "-----BEGIN PGP SIGNED MESSAGE-----",
  "Hash: SHA256",
  "",
  ...[
    "ChangeLog-6.14.1",
    "linux-6.13.tar.gz",
    "linux-6.13.tar.xz",
    "linux-6.14.1.tar.xz",
    "linux-6.14.10.tar.gz",
    "linux-6.14.10.tar.xz",
    "linux-6.14.2.tar.sign",
    "linux-6.14.2.tar.xz",
    "linux-6.14.tar.xz",
    "linux-6.15.tar.xz",
    "patch-6.14.11.xz"
  ].map((name) => `${sha256(name)}  ${name}`),
  "-----BEGIN PGP SIGNATURE-----",
  "",
  "iQIzBAEBCAAdFiEE",
  "-----END PGP SIGNATURE-----",
  ""
].join("\n")

const find = (text: string) =>
  Effect.gen(function*() {
    const root = yield* temporary
    const during: Array<string> = []
    const server = yield* serve((request, response) => {
      during.push(...readdirSync(root))
      return void (request.url === "/pub/v6.x/sha256sums.asc"
        ? response.writeHead(200, { "content-type": "text/plain" }).end(list)
        : response.writeHead(404).end())
    })
    const version = parseKernelVersion(text)
    if (version === undefined) throw new Error(`${text} is no version`)
    const mirror = `${server.url}/pub`
    const found = yield* Effect.either(
      withVariables({ KTSTR_KERNEL_MIRROR: `${mirror}/` })(kernelRelease(version, root))
    )
    // what a run leaves that is killed now lies where the next one removes it
    for (const name of during) assert.match(name, /^\.tmp-[0-9a-f-]{36}$|^\.lock/)
    assert.deepStrictEqual(readdirSync(root), [])
    return found._tag === "Right"
      ? { ...found.right, url: found.right.url.replace(mirror, "M"), asked: server.asked }
      : { message: found.left.message.replaceAll(mirror, "M") }
  }).pipe(Effect.provide(Live))

const release = (version: string, name: string) => ({ version, url: `M/v6.x/${name}`, sha256: sha256(name) })

it.scopedLive("of a series the newest release is meant, by number and not by name", () =>
  Effect.gen(function*() {
    assert.deepInclude(yield* find("6.14"), release("6.14.10", "linux-6.14.10.tar.xz"))
    assert.deepInclude(yield* find("6.13"), release("6.13.0", "linux-6.13.tar.xz"))
  }))

it.scopedLive("a version with a patch number means that one; .0 is the series' first", () =>
  Effect.gen(function*() {
    assert.deepInclude(yield* find("6.14.2"), release("6.14.2", "linux-6.14.2.tar.xz"))
    assert.deepInclude(yield* find("6.14.0"), release("6.14.0", "linux-6.14.tar.xz"))
  }))

it.scopedLive("a version that is not listed names the closest ones", () =>
  Effect.gen(function*() {
    const message = (version: string, close: string) => ({
      message: `kernel ${version}: M has no such release; ${close}`
    })
    assert.deepStrictEqual(yield* find("6.14.9"), message("6.14.9", "the closest are 6.14.1, 6.14.2, 6.14.10"))
    assert.deepStrictEqual(yield* find("6.99"), message("6.99", "the closest are 6.14.2, 6.14.10, 6.15"))
    assert.deepStrictEqual(yield* find("6.1"), message("6.1", "the closest are 6.13, 6.14, 6.14.1"))
    assert.deepStrictEqual(yield* find("9.1"), message("9.1", "check the version"))
  }))

it.scopedLive("a release candidate comes from rc/, is asked for without a look at the list, and has no checksum", () =>
  Effect.gen(function*() {
    assert.deepStrictEqual(yield* find("6.15-rc1"), {
      version: "6.15.0-rc1",
      url: "M/rc/linux-6.15-rc1.tar.gz",
      asked: []
    })
    assert.deepStrictEqual(yield* find("6.14.3-rc1"), {
      message: "kernel 6.14.3-rc1: M has no such release; check the version"
    })
  }))

it.scopedLive("without a mirror of one's own kernel.org is asked; one that is no address is refused", () =>
  Effect.gen(function*() {
    const candidate = parseKernelVersion("6.15-rc1")
    const found = candidate &&
      (yield* withVariables({ KTSTR_KERNEL_MIRROR: " " })(kernelRelease(candidate, yield* temporary)))
    assert.strictEqual(found?.url, "https://git.kernel.org/torvalds/t/linux-6.15-rc1.tar.gz")
    const error = candidate &&
      (yield* Effect.flip(
        withVariables({ KTSTR_KERNEL_MIRROR: "ftp://x" })(kernelRelease(candidate, yield* temporary))
      ))
    assert.strictEqual(
      error?.message,
      "cannot download ftp://x: KTSTR_KERNEL_MIRROR is not an http or https URL; " +
        "set it to one with the layout of https://cdn.kernel.org/pub/linux/kernel, or unset it"
    )
  }).pipe(Effect.provide(Live)))

it.scopedLive("a server that answers with a web page is no mirror", () =>
  Effect.gen(function*() {
    const server = yield* serve((_request, response) =>
      void response.writeHead(200, { "content-type": "text/html" }).end("<html>")
    )
    const version = parseKernelVersion("6.14")
    const error = version &&
      (yield* Effect.flip(withVariables({ KTSTR_KERNEL_MIRROR: server.url })(kernelRelease(version, yield* temporary))))
    assert.include(error?.message, "v6.x/sha256sums.asc: the server answered with a web page")
  }).pipe(Effect.provide(Live)))
