import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { withLock } from "../../../../src/core/EntryLock.ts"
import { listEntries, readEntry, storeKernel, verifyEntry } from "../../../../src/core/kernels/cache/KernelCache.ts"
import { Native } from "../../../../src/core/Native.ts"
import { brief, contents, fault, fill, KEY, store, storeAll, visible } from "../../cacheEntries.ts"
import { Host, temporary } from "../../kernelEntries.ts"
import { run } from "../../samples.ts"

layer(Host, { excludeTestServices: true })("the cache", (it) => {
  it.scoped("stores the files with their sizes and hashes, as sha256sum gives them, and leaves nothing else", () =>
    Effect.gen(function*() {
      const root = join(yield* temporary, "deep/er")
      const entry = yield* store(root, KEY, "one")
      assert.strictEqual(entry.directory, join(root, KEY))
      assert.deepStrictEqual(readdirSync(root).toSorted(), [KEY, ".locks"].toSorted())
      assert.deepStrictEqual(readdirSync(entry.directory).toSorted(), ["bzImage", "config", "metadata.json", "vmlinux"])
      const { image, vmlinux } = entry.metadata
      assert.strictEqual(
        run("sha256sum", ["bzImage", "vmlinux"].map((name) => join(entry.directory, name))).toString(),
        [image, vmlinux].map((file) => `${file?.sha256}  ${join(entry.directory, file?.name ?? "")}\n`).join("")
      )
      assert.strictEqual(image.bytes, "bzImage one".length)
      assert.deepStrictEqual(yield* readEntry(root, KEY), Option.some(entry))
      assert.deepStrictEqual(yield* listEntries(root), [entry])
      assert.deepStrictEqual(yield* verifyEntry(root, KEY), Option.some(entry))
    }))

  it.scoped("has no entry where there is no directory, and looks at nothing outside of it", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* store(join(root, "cache"), KEY, "one")
      writeFileSync(join(root, "cache/file"), "")
      for (const key of ["nothing", "file", "", ".", "..", ".locks", `../cache/${KEY}`, "a\0b", "x".repeat(300)]) {
        assert.deepStrictEqual(yield* readEntry(join(root, "cache"), key), Option.none(), key)
      }
      assert.deepStrictEqual(brief(yield* listEntries(join(root, "cache"))), [KEY])
      assert.deepStrictEqual(yield* listEntries(join(root, "none")), [])
      assert.deepStrictEqual(yield* verifyEntry(join(root, "none"), KEY), Option.none())
      const error = yield* Effect.flip(listEntries(join(root, "cache/file")))
      assert.match(
        error.message,
        /^kernel cache \S+: ENOTDIR: .*; set KTSTR_CACHE_DIR to a directory that you can write$/
      )
      assert.deepStrictEqual(readdirSync(root), ["cache"])
    }))

  it.scoped("lists what was stored last first, corrupt entries after them", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      yield* storeAll(root, ["b", "c", "a"])
      mkdirSync(join(root, "z"))
      mkdirSync(join(root, "y"))
      assert.deepStrictEqual(brief(yield* listEntries(root)), ["a", "c", "b", "y: missing", "z: missing"])
      yield* store(root, "b", "again")
      assert.deepStrictEqual(brief(yield* listEntries(root)), ["b", "a", "c", "y: missing", "z: missing"])
    }))

  it.scoped("tells what is wrong with an entry, and lists the others all the same", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const good = yield* store(root, "good", "one")
      const metadata = readFileSync(join(good.directory, "metadata.json"), "utf8")
      const file = join(root, KEY, "metadata.json")
      const changed = (change: object) => JSON.stringify({ ...JSON.parse(metadata), ...change })
      const old = {
        source: "debian",
        package: "linux-image-6.1.0-56-amd64",
        version: "6.1.1-1",
        release: "6.1.0-56-amd64",
        imageBytes: 1,
        imageSha256: "0".repeat(64)
      }
      const cases: ReadonlyArray<readonly [string | Uint8Array, RegExp]> = [
        ["", /^truncated: metadata.json ends before its closing brace$/],
        [metadata.slice(0, 100), /^truncated: /],
        [metadata.replace(":", " "), /^malformed: metadata.json is not JSON: /],
        [`${metadata}}`, /^malformed: /],
        ["\x1b[2J}", /^malformed: \P{C}*$/u],
        [Buffer.from([0x7b, 0xff, 0x7d]), /^parse_error: metadata.json is not UTF-8$/],
        [" ".repeat(65537), /^parse_error: metadata.json has 65537 bytes, more than 65536$/],
        ["null", /^schema_drift: metadata.json is of another format: /],
        [JSON.stringify(old), /^schema_drift: metadata.json is of another format at format: is missing$/],
        [changed({ format: 2 }), /^schema_drift: metadata.json is of another format at format: Expected 1, actual 2$/],
        [
          changed({ image: { name: "../good/bzImage", bytes: 11, sha256: "0".repeat(64) } }),
          /^schema_drift: .* at image.name: /
        ],
        [changed({ image: { name: "Image", bytes: 11, sha256: "0".repeat(64) } }), /^image_missing: Image is gone$/],
        [changed({ config: "kconfig" }), /^image_missing: kconfig is gone$/],
        [changed({ config: "folder" }), /^image_missing: folder is not a file$/],
        [changed({ config: "loop" }), /^unknown: ELOOP: /]
      ]
      for (const [text, expected] of cases) {
        yield* store(root, KEY, "one")
        mkdirSync(join(root, KEY, "folder"))
        symlinkSync("loop", join(root, KEY, "loop"))
        assert.strictEqual(yield* fault(root, KEY), "valid")
        writeFileSync(file, text)
        assert.match(yield* fault(root, KEY), expected)
        assert.strictEqual((yield* listEntries(root)).length, 2)
      }
      const damages: ReadonlyArray<readonly [() => void, RegExp]> = [
        [() => rmSync(file), /^missing: it holds no metadata.json$/],
        [() => run("sh", ["-c", `rm ${file}; mkfifo ${file}`]), /^unreadable: metadata.json is not a file$/],
        [() => run("sh", ["-c", `rm ${file}; ln -s metadata.json ${file}`]), /^unreadable: ELOOP: /],
        [
          () => truncateSync(join(root, KEY, "bzImage"), 5),
          /^image_missing: bzImage has 5 bytes, not the 11 that were stored$/
        ],
        [() => appendFileSync(join(root, KEY, "vmlinux"), "x"), /^image_missing: vmlinux has 12 bytes, not the 11 /],
        [() => rmSync(join(root, KEY, "vmlinux")), /^image_missing: vmlinux is gone$/]
      ]
      for (const [damage, expected] of damages) {
        yield* store(root, KEY, "one")
        damage()
        assert.match(yield* fault(root, KEY), expected)
      }
      yield* store(root, KEY, "one")
      writeFileSync(join(root, KEY, "bzImage"), "bzImage One")
      assert.strictEqual(yield* fault(root, KEY), "valid", "the content is not read")
      const verified = Option.getOrThrow(yield* verifyEntry(root, KEY))
      assert.deepInclude(verified, { kind: "image_missing", why: "bzImage does not have the content that was stored" })
    }))

  it.scoped("calls every start of its metadata truncated", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { directory } = yield* store(root, KEY, "one")
      const file = join(directory, "metadata.json")
      const whole = readFileSync(file, "utf8").trimEnd()
      for (let length = 0; length < whole.length; length += 7) {
        writeFileSync(file, whole.slice(0, length))
        assert.match(yield* fault(root, KEY), /^truncated: /, `${length} of ${whole.length}`)
      }
      writeFileSync(file, whole)
      assert.strictEqual(yield* fault(root, KEY), "valid")
    }))

  it.scoped("survives any metadata: one line each", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const { directory } = yield* store(root, KEY, "one")
      const file = join(directory, "metadata.json")
      const whole = readFileSync(file)
      const hostile = FastCheck.oneof(
        FastCheck.uint8Array({ maxLength: 40 }),
        FastCheck.json().map((text) => Buffer.from(text)),
        FastCheck.tuple(FastCheck.nat(whole.length - 1), FastCheck.nat(255)).map(([at, byte]) => {
          const copy = Buffer.from(whole)
          copy[at] = byte
          return copy
        })
      )
      for (const bytes of FastCheck.sample(hostile, { numRuns: 200, seed: 3 })) {
        writeFileSync(file, bytes)
        const answer = yield* fault(root, KEY)
        assert.match(
          answer,
          /^(valid|(truncated|malformed|parse_error|schema_drift|image_missing|unknown): \P{C}+)$/u
        )
      }
    }))

  it.scoped("replaces a valid entry only when it is asked to, and a broken one always", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const image = join(root, KEY, "bzImage")
      const first = yield* store(root, KEY, "one", false)
      assert.deepStrictEqual(yield* store(root, KEY, "two", false), first)
      assert.strictEqual(readFileSync(image, "utf8"), "bzImage one")
      yield* store(root, KEY, "three")
      assert.strictEqual(readFileSync(image, "utf8"), "bzImage three")
      truncateSync(image)
      yield* store(root, KEY, "four", false)
      assert.strictEqual(readFileSync(image, "utf8"), "bzImage four")
      assert.deepStrictEqual(visible(root), [KEY])
    }))

  it.scoped("puts an entry where something else was, without following links", () =>
    Effect.gen(function*() {
      const [root, outside] = [yield* temporary, yield* temporary]
      yield* store(outside, KEY, "outside")
      writeFileSync(join(root, "file"), "")
      symlinkSync("/no/such/place", join(root, "dangling"))
      symlinkSync(join(outside, KEY), join(root, "link"))
      mkdirSync(join(root, "full/of/things"), { recursive: true })
      for (const key of ["file", "dangling", "link", "full"]) {
        yield* store(root, key, "one")
        assert.strictEqual(yield* fault(root, key), "valid")
      }
      assert.deepStrictEqual(visible(root), ["dangling", "file", "full", "link"])
      assert.strictEqual(readFileSync(join(outside, KEY, "bzImage"), "utf8"), "bzImage outside")
    }))

  it.scoped("leaves what was there when filling fails or is interrupted, and nothing else", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const before = yield* store(root, KEY, "one")
      const failing = storeKernel(
        root,
        KEY,
        (path) => Effect.zipRight(fill("two")(path), Effect.fail("broken" as const)),
        {
          replace: true
        }
      )
      assert.strictEqual(yield* Effect.flip(failing), "broken")
      const incomplete = storeKernel(root, KEY, () => Effect.succeed(contents), { replace: true })
      assert.match((yield* Effect.flip(incomplete)).message, /^kernel cache \S+: ENOENT: /)
      const fiber = yield* Effect.fork(
        storeKernel(root, KEY, (path) => Effect.zipRight(fill("two")(path), Effect.never), { replace: true })
      )
      while (visible(root).length === 1) yield* Effect.sleep("1 millis")
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(visible(root), [KEY])
      assert.deepStrictEqual(yield* verifyEntry(root, KEY), Option.some(before))
    }))

  it.scoped("of stores at once keeps the last with replace, the first without", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const at = (key: string, replace: boolean) => (text: string) =>
        Effect.map(store(root, key, text, replace), ({ metadata }) => metadata.image.sha256)
      const texts = Array.from({ length: 5 }, (_, index) => `number ${index}`)
      const concurrency = { concurrency: "unbounded" } as const
      const replaced = yield* Effect.forEach(texts, at("replaced", true), concurrency)
      const kept = yield* Effect.forEach(texts, at("kept", false), concurrency)
      assert.strictEqual(new Set(replaced).size, texts.length)
      assert.strictEqual(new Set(kept).size, 1)
      for (const [key, hashes] of [["replaced", replaced], ["kept", kept]] as const) {
        const entry = Option.getOrThrow(yield* verifyEntry(root, key))
        assert.isTrue(entry._tag === "Valid" && hashes.includes(entry.metadata.image.sha256))
      }
      assert.deepStrictEqual(visible(root), ["kept", "replaced"])
    }))

  it.scoped("is read as it was at one moment, while others store it anew", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const native = yield* Native
      for (const key of ["short", "a-longer-one"]) yield* store(root, key, key)
      const spares = Array.from({ length: 100 }, (_, index) => {
        const spare = join(root, `.spare-${index}`)
        cpSync(join(root, index % 2 === 0 ? "a-longer-one" : "short"), spare, { recursive: true })
        return spare
      })
      let reads = 0
      // Every seventh waits for a whole reading: of either content in turn, whatever else the machine does.
      const storing = yield* Effect.fork(
        Effect.forEach(spares, (spare, index) =>
          Effect.gen(function*() {
            yield* Effect.sleep("1 millis")
            yield* native.exchange(spare, join(root, "short"))
            const before = reads
            while (index % 7 === 6 && reads < before + 2) yield* Effect.sleep("1 millis")
          }))
      )
      const seen = new Set<number>()
      while (storing.unsafePoll() === null) {
        const entry = Option.getOrThrow(yield* readEntry(root, "short"))
        reads++
        if (entry._tag === "Corrupt") {
          assert.fail(entry.why)
        }
        seen.add(entry.metadata.image.bytes)
      }
      yield* Fiber.join(storing)
      assert.strictEqual(seen.size, 2)
    }))

  it.scoped("waits for an entry that somebody has locked, and leaves it alone till then", () =>
    Effect.gen(function*() {
      const root = yield* temporary
      const before = yield* store(root, KEY, "one")
      const second = yield* withLock(join(root, `.locks/${KEY}.lock`), "exclusive", 0)(Effect.gen(function*() {
        const fiber = yield* Effect.fork(store(root, KEY, "two"))
        yield* Effect.sleep("150 millis")
        assert.isNull(fiber.unsafePoll())
        assert.deepStrictEqual(yield* readEntry(root, KEY), Option.some(before))
        return fiber
      }))
      assert.strictEqual((yield* Fiber.join(second)).key, KEY)
      assert.strictEqual(readFileSync(join(root, KEY, "bzImage"), "utf8"), "bzImage two")
    }))
})
