import * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import type * as HttpClient from "@effect/platform/HttpClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { download } from "../../../../src/core/kernels/build/Download.ts"
import { type Answer, hangUpWhen, type Manners, sendFile, serve } from "../../httpServer.ts"
import { temporary } from "../../kernelEntries.ts"
import { run } from "../../samples.ts"

/** A real tarball, of this project's sources. */
const tarball: Uint8Array = run("tar", ["-cJf", "-", "src"])
/** Another one of the same length would be luck; this one has other bytes from the start. */
const changed: Uint8Array = run("tar", ["-czf", "-", "src"])
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")
const ETAG = { etag: "\"one\"" }

/** Whether the part of a download in a directory has so many bytes. */
const partHas = (directory: string) => (bytes: number) => () => {
  const part = join(directory, "linux.tar.xz.part")
  return existsSync(part) && statSync(part).size >= bytes
}

const clients: ReadonlyArray<[string, Layer.Layer<HttpClient.HttpClient>]> = [
  ["fetch", FetchHttpClient.layer],
  ["node:http", NodeHttpClient.layer]
]

describe.each(clients)("a download over %s", (_, client) => {
  const Live = Layer.merge(NodeContext.layer, client)

  /** Download from a server of these manners; what came, what is in the directory, what was asked for. */
  const get = (
    answer: (...given: [...Parameters<Answer>, (bytes: number) => () => boolean]) => void,
    options: { sha256?: string; attempts?: number; directory?: string; limit?: number } = {}
  ) =>
    Effect.gen(function*() {
      const directory = options.directory ?? (yield* temporary)
      const server = yield* serve((...given) => answer(...given, partHas(directory)))
      const file = join(directory, "linux.tar.xz")
      const result = yield* Effect.either(download(`${server.url}/linux.tar.xz`, file, options))
      const message = result._tag === "Left" ? result.left.message.replaceAll(server.url, "http://server") : undefined
      const left = readdirSync(directory).toSorted()
      return {
        message,
        left,
        asked: server.asked,
        directory,
        bytes: message === undefined ? readFileSync(file) : undefined
      }
    }).pipe(Effect.provide(Live))

  it.scopedLive("stops at a file that is larger than allowed, announced or not, and keeps nothing of it", () =>
    Effect.gen(function*() {
      const message = "cannot download http://server/linux.tar.xz: the file is larger than the limit of 1000 bytes; " +
        "check the URL"
      const announced = yield* get((request, response) => sendFile(request, response, tarball, ETAG), { limit: 1000 })
      assert.deepStrictEqual([announced.message, announced.left, announced.asked.length], [message, [], 1])
      const endless = yield* get((_request, response) => {
        const more = () => {
          while (!response.destroyed && response.write(Buffer.alloc(4096, "x")));
        }
        response.on("drain", more)
        response.writeHead(200, { "content-type": "application/x-xz" })
        more()
      }, { limit: 1000 })
      assert.deepStrictEqual([endless.message, endless.left, endless.asked.length], [message, [], 1])
    }))

  it.scopedLive("gives the file and nothing else", () =>
    Effect.gen(function*() {
      const { asked, bytes, directory, left, message } = yield* get(
        (request, response) => sendFile(request, response, tarball, ETAG),
        { sha256: sha256(tarball) }
      )
      assert.isUndefined(message)
      assert.deepStrictEqual(left, ["linux.tar.xz"])
      assert.isTrue(bytes?.equals(tarball))
      assert.include(
        run("tar", ["-tf", join(directory, "linux.tar.xz")]).toString(),
        "src/core/kernels/build/Download.ts"
      )
      assert.strictEqual(asked.length, 1)
      assert.isUndefined(asked[0].headers.range)
      assert.isUndefined(asked[0].headers.traceparent)
    }))

  it.scopedLive("goes on where the connection was cut, wherever that is", () =>
    Effect.gen(function*() {
      for (const cut of [1, 4096, tarball.length >> 1, tarball.length - 1]) {
        const { asked, bytes, left } = yield* get(
          (request, response, count, has) =>
            sendFile(request, response, tarball, {
              ...ETAG,
              cutAfter: count === 0 ? cut : undefined,
              arrived: has(cut)
            }),
          { sha256: sha256(tarball) }
        )
        assert.isTrue(bytes?.equals(tarball), `cut after ${cut}`)
        assert.deepStrictEqual(left, ["linux.tar.xz"])
        assert.deepStrictEqual(asked.map(({ headers }) => [headers.range, headers["if-range"]]), [
          [undefined, undefined],
          [`bytes=${cut}-`, ETAG.etag]
        ])
      }
    }))

  it.scopedLive("takes the date where there is no strong ETag, and begins anew where there is neither", () =>
    Effect.gen(function*() {
      const cutOnce = (manners: Manners) =>
        get((request, response, count, has) =>
          sendFile(request, response, tarball, {
            ...manners,
            cutAfter: count === 0 ? 1000 : undefined,
            arrived: has(1000)
          })
        )
      const lastModified = "Thu, 20 Nov 2025 10:00:00 GMT"
      const dated = yield* cutOnce({ etag: "W/\"weak\"", lastModified })
      assert.isTrue(dated.bytes?.equals(tarball))
      assert.strictEqual(dated.asked[1].headers["if-range"], lastModified)
      const neither = yield* cutOnce({})
      assert.isTrue(neither.bytes?.equals(tarball))
      assert.isUndefined(neither.asked[1].headers.range)
    }))

  it.scopedLive("begins anew where the server ignores the range, or has another file by now", () =>
    Effect.gen(function*() {
      const ignorant = yield* get((request, response, count) =>
        sendFile(request, response, tarball, { ...ETAG, ignoreRange: true, cutAfter: count === 0 ? 5000 : undefined })
      )
      assert.isTrue(ignorant.bytes?.equals(tarball))
      for (const ignoreIfRange of [false, true]) {
        const { asked, bytes, left } = yield* get((request, response, count, has) =>
          count === 0
            ? sendFile(request, response, tarball, { ...ETAG, cutAfter: 5000, arrived: has(5000) })
            : sendFile(request, response, changed, { etag: "\"two\"", ignoreIfRange })
        )
        assert.isTrue(bytes?.equals(changed), `ignoreIfRange ${ignoreIfRange}`)
        assert.strictEqual(asked.length, ignoreIfRange ? 3 : 2)
        assert.deepStrictEqual(left, ["linux.tar.xz"])
      }
    }))

  it.scopedLive("keeps what has come when it gives up, and the next run completes it", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const file = join(directory, "linux.tar.xz")
      const server = yield* serve((request, response, count) =>
        sendFile(request, response, tarball, {
          ...ETAG,
          cutAfter: count < 2 ? 3000 : undefined,
          arrived: partHas(directory)(3000 * (count + 1))
        })
      )
      const url = `${server.url}/linux.tar.xz`
      const error = yield* Effect.flip(download(url, file, { attempts: 2 }))
      assert.strictEqual(
        error.message,
        `cannot download ${url}: the connection ended after 6000 of ${tarball.length} bytes (the last of 2 attempts); ` +
          "check the network and the URL, and try again: the 6000 bytes received so far are kept"
      )
      assert.deepStrictEqual(readdirSync(directory).toSorted(), ["linux.tar.xz.part", "linux.tar.xz.part.json"])
      yield* download(url, file)
      assert.strictEqual(server.asked[2].headers.range, "bytes=6000-")
      assert.isTrue(readFileSync(file).equals(tarball))
      assert.deepStrictEqual(readdirSync(directory), ["linux.tar.xz"])
    }).pipe(Effect.provide(Live)))

  it.scopedLive("says nothing of what is kept where nothing can be gone on from", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const file = join(directory, "linux.tar.xz")
      const { url } = yield* serve((request, response) => sendFile(request, response, tarball, { cutAfter: 3000 }))
      for (const address of [`${url}/linux.tar.xz`, "http://127.0.0.1:1/linux.tar.xz"]) {
        const { hint } = yield* Effect.flip(download(address, file, { attempts: 1 }))
        assert.strictEqual(hint, "check the network and the URL, and try again")
      }
    }).pipe(Effect.provide(Live)))

  it.scopedLive("does not go on with a part of another address, nor with a state that is broken", () =>
    Effect.gen(function*() {
      for (const state of [JSON.stringify({ url: "http://other/x", validator: ETAG.etag }), "{", ""]) {
        const directory = yield* temporary
        writeFileSync(join(directory, "linux.tar.xz.part"), "of another file")
        writeFileSync(join(directory, "linux.tar.xz.part.json"), state)
        const { asked, bytes } = yield* get((request, response) => sendFile(request, response, tarball, ETAG), {
          directory
        })
        assert.isUndefined(asked[0].headers.range)
        assert.isTrue(bytes?.equals(tarball))
      }
    }))

  it.scopedLive("begins anew where the part is longer than the file", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const file = join(directory, "linux.tar.xz")
      const server = yield* serve((request, response) => sendFile(request, response, tarball, ETAG))
      const url = `${server.url}/linux.tar.xz`
      writeFileSync(`${file}.part`, Buffer.concat([tarball, tarball]))
      writeFileSync(`${file}.part.json`, JSON.stringify({ url, validator: ETAG.etag }))
      yield* download(url, file)
      assert.deepStrictEqual(server.asked.map(({ headers }) => headers.range), [
        `bytes=${2 * tarball.length}-`,
        undefined
      ])
      assert.isTrue(readFileSync(file).equals(tarball))
    }).pipe(Effect.provide(Live)))

  it.scopedLive("does not take a file for whole that came without a length and was cut", () =>
    Effect.gen(function*() {
      const { left, message } = yield* get((_request, response, _count, has) => {
        response.writeHead(200, ETAG)
        response.write(tarball.subarray(0, 2000))
        hangUpWhen(response, has(2000))
      }, { attempts: 1 })
      assert.match(message ?? "", /: the connection ended after 2000 bytes; check the network/)
      assert.include(left, "linux.tar.xz.part")
      const whole = yield* get((_request, response) => void response.writeHead(200).end(tarball))
      assert.isTrue(whole.bytes?.equals(tarball))
    }))

  it.scopedLive("finds out a server that lies about the length", () =>
    Effect.gen(function*() {
      const tooLong = yield* get(
        (request, response, _count, has) =>
          sendFile(request, response, tarball, {
            headers: { "content-length": "99999999" },
            cutAfter: tarball.length,
            arrived: has(tarball.length)
          }),
        { attempts: 1 }
      )
      assert.include(tooLong.message, `the connection ended after ${tarball.length} of 99999999 bytes; `)

      const tooShort = yield* get(
        (request) => {
          request.socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
          request.socket.end(tarball)
        },
        { attempts: 1, sha256: sha256(tarball) }
      )
      assert.match(tooShort.message ?? "", /its sha256 is .*, not |the connection ended after/)
      assert.notInclude(tooShort.left, "linux.tar.xz")

      const rangeTooShort = yield* get((request, response, count, has) => {
        if (count === 0) return sendFile(request, response, tarball, { ...ETAG, cutAfter: 100, arrived: has(100) })
        response.writeHead(206, { ...ETAG, "content-range": "bytes 100-199/200" }).end(tarball.subarray(100))
      }, { attempts: 2 })
      assert.include(rangeTooShort.message, `the server announced 200 bytes and sent ${tarball.length} (the last of 2`)
      assert.deepStrictEqual(rangeTooShort.left, [])
    }))

  it.scopedLive("refuses content of another checksum, and keeps none of it", () =>
    Effect.gen(function*() {
      const { asked, left, message } = yield* get((request, response) => sendFile(request, response, tarball, ETAG), {
        sha256: sha256(changed)
      })
      assert.strictEqual(
        message,
        `cannot download http://server/linux.tar.xz: its sha256 is ${sha256(tarball)}, not ${sha256(changed)}; ` +
          "try again, or use another server: nothing was kept"
      )
      assert.strictEqual(asked.length, 1)
      assert.deepStrictEqual(left, [])
    }))

  it.scopedLive("refuses a web page by its type and by its look", () =>
    Effect.gen(function*() {
      const page = "<!DOCTYPE html><html><body>Are you a robot?</body></html>"
      for (const type of ["text/html; charset=utf-8", "application/x-xz"]) {
        const { asked, left, message } = yield* get((_request, response) =>
          void response.writeHead(200, { "content-type": type }).end(page)
        )
        assert.strictEqual(
          message,
          "cannot download http://server/linux.tar.xz: the server answered with a web page, not with a file; check the URL"
        )
        assert.strictEqual(asked.length, 1)
        assert.deepStrictEqual(left, [])
      }
    }))

  it.scopedLive("refuses an encoding that would unpack the file on the way", () =>
    Effect.gen(function*() {
      const { asked, message } = yield* get((request, response) =>
        sendFile(request, response, changed, { headers: { "content-encoding": "gzip" } })
      )
      assert.include(message, "content-encoding gzip although none was requested")
      assert.strictEqual(asked[0].headers["accept-encoding"], "identity")
    }))

  it.scopedLive("tries again where the server is busy, and not where the file is not there", () =>
    Effect.gen(function*() {
      for (const [status, requests] of [[404, 1], [403, 1], [500, 3], [503, 3], [429, 3]] as const) {
        const { asked, left, message } = yield* get((_request, response) => void response.writeHead(status).end(), {
          attempts: 3
        })
        assert.include(message, `: the server answered ${status}`)
        assert.strictEqual(asked.length, requests, `${status}`)
        assert.deepStrictEqual(left, [])
      }
      const recovered = yield* get((request, response, count) =>
        count === 0 ? void response.writeHead(503).end() : sendFile(request, response, tarball, ETAG)
      )
      assert.isTrue(recovered.bytes?.equals(tarball))
    }))

  it.scopedLive("follows redirects, and not for ever", () =>
    Effect.gen(function*() {
      const { asked, bytes } = yield* get((request, response) =>
        request.url === "/linux.tar.xz"
          ? void response.writeHead(302, { location: "/mirror/linux.tar.xz" }).end()
          : sendFile(request, response, tarball, ETAG)
      )
      assert.isTrue(bytes?.equals(tarball))
      assert.deepStrictEqual(asked.map(({ path }) => path), ["/linux.tar.xz", "/mirror/linux.tar.xz"])
      const loop = yield* get(
        (_request, response) => void response.writeHead(302, { location: "/linux.tar.xz" }).end(),
        { attempts: 1 }
      )
      assert.isDefined(loop.message)
      assert.isBelow(loop.asked.length, 30)
    }))

  it.scopedLive("says what is wrong with a server that is not there, an address that is none, a place that is none", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const file = join(directory, "x")
      const closed = yield* serve(() => undefined)
      closed.close()
      const refused = yield* Effect.flip(download(`${closed.url}/x`, file, { attempts: 2 }))
      assert.match(
        refused.message,
        /: connect ECONNREFUSED 127\.0\.0\.1:\d+ \(the last of 2 attempts\); check the network/
      )
      const address = yield* Effect.flip(download("http://[", file))
      assert.strictEqual(address.message, "cannot download http://[: not a URL; check the URL")
      const server = yield* serve((request, response) => sendFile(request, response, tarball, ETAG))
      const place = yield* Effect.flip(download(`${server.url}/x`, join(directory, "no/such/x")))
      assert.match(place.message, /; free some space, or choose a directory that you can write$/)
      mkdirSync(`${file}.part`)
      assert.include((yield* Effect.flip(download(`${server.url}/x`, file))).message, "free some space, or choose")
    }).pipe(Effect.provide(Live)))

  it.scopedLive("interrupted, it hangs up and leaves the part", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const file = join(directory, "x")
      let hungUp = () => {}
      const closed = new Promise<void>((resolve) => (hungUp = resolve))
      const server = yield* serve((_request, response) => {
        response.on("close", hungUp)
        response.writeHead(200, { ...ETAG, "content-length": 10_000 })
        response.write(tarball.subarray(0, 5000))
      })
      const fiber = yield* Effect.fork(download(`${server.url}/x`, file))
      while (!existsSync(`${file}.part`) || readFileSync(`${file}.part`).length < 5000) yield* Effect.sleep("5 millis")
      yield* Fiber.interrupt(fiber)
      yield* Effect.promise(() => closed)
      assert.deepStrictEqual(readdirSync(directory).toSorted(), ["x.part", "x.part.json"])
    }).pipe(Effect.provide(Live)))

  it.scopedLive("does not take bytes that are no HTTP", () =>
    Effect.gen(function*() {
      const server = createServer((socket) => socket.on("error", () => undefined).end("SSH-2.0-OpenSSH\r\n"))
      yield* Effect.acquireRelease(
        Effect.async<void>((done) => void server.listen(0, "127.0.0.1", () => done(Effect.void))),
        () => Effect.sync(() => server.close())
      )
      const address = server.address()
      const port = typeof address === "object" ? address?.port : undefined
      const directory = yield* temporary
      const error = yield* Effect.flip(download(`http://127.0.0.1:${port}/x`, join(directory, "x"), { attempts: 1 }))
      assert.match(error.message, /Parse Error|Response does not match/)
      assert.deepStrictEqual(readdirSync(directory), [])
    }).pipe(Effect.provide(Live)))
})
