import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, layer } from "@effect/vitest"
import { Ajv } from "ajv"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { execFileSync, spawnSync } from "node:child_process"
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DumpDocument, DumpRecord } from "../../src/bpf/Report.ts"
import { lossesIn } from "../../src/core/Losses.ts"
import { isLoss } from "../../src/core/Reason.ts"
import { decodeSched } from "../../src/sched/index.ts"
import { complaints, KTSTR, ktstr, until } from "../support/cli.ts"
import { scratch } from "../support/guest.ts"
import { copyStart, guestImage, IMAGE_MIB } from "../support/image.ts"

const ESC = "\x1b"
const whole = { onExcessProperty: "error" } as const
const decodeDocument = Schema.decodeUnknown(Schema.parseJson(DumpDocument), whole)
const decodeRecord = Schema.decodeUnknownSync(Schema.parseJson(DumpRecord), whole)

/** A real image, and the directory that it is in. */
class Image extends Context.Tag("test/Image")<Image, { readonly directory: string; readonly image: string }>() {
  static readonly layer = Layer.scoped(Image, Effect.all({ directory: scratch, image: guestImage })).pipe(
    Layer.provide(NodeContext.layer)
  )
}

/** Copy the image, every `from` in it replaced by a `to` of the same length; at least one. */
const altered = (image: string, to: string, change: readonly [from: Uint8Array, to: Uint8Array]) =>
  Effect.sync(() => {
    const bytes = readFileSync(image)
    const [wanted, put] = change
    assert.strictEqual(wanted.length, put.length)
    let count = 0
    for (let at = bytes.indexOf(wanted); at >= 0; at = bytes.indexOf(wanted, at + 1), count++) bytes.set(put, at)
    assert.isAbove(count, 0)
    writeFileSync(to, bytes)
    return to
  })

layer(Image.layer, { excludeTestServices: true, timeout: "3 minutes" })("ktstr on an image", (it) => {
  it.effect("prints a document that --schema describes, with the records of --ndjson", () =>
    Effect.gen(function*() {
      const { image } = yield* Image
      const json = yield* ktstr(["dump", "--image", image, "--json"])
      const document = yield* decodeDocument(json.stdout)
      const schema = yield* ktstr(["dump", "--schema"])
      const fits = new Ajv({ strict: false }).compile(JSON.parse(schema.stdout))
      assert.isTrue(fits(JSON.parse(json.stdout)), JSON.stringify(fits.errors))
      assert.isFalse(fits({ ...JSON.parse(json.stdout), kernel: { release: 6 } }))
      assert.deepStrictEqual([json.code, complaints(json), schema.stderr, schema.code], [0, [], "", 0])
      assert.isAbove(document.maps.length, 40)
      const { tasks } = decodeSched(document.sched)
      assert.isTrue(!("kind" in tasks) && tasks.some(({ comm, pid }) => pid === 1 && comm === "init"), "its init")

      const ndjson = yield* ktstr(["dump", "--image", image, "--ndjson"])
      const records = ndjson.stdout.trimEnd().split("\n").map((line) => decodeRecord(line))
      for (const map of document.maps) {
        const entries = records.flatMap((each) => each.record === "entry" && each.id === map.id ? [each] : [])
        const stripped = entries.map(({ id: _id, name: _name, record: _record, ...entry }) => entry)
        assert.deepStrictEqual<unknown>(stripped, map.entries, map.name)
        const end = records.find((each) => each.record === "mapEnd" && each.id === map.id)
        assert.deepInclude(end, { entries: entries.length, truncated: false, problem: map.problem })
      }
      assert.strictEqual(records.filter(({ record }) => record === "map").length, document.maps.length)
      assert.deepStrictEqual([ndjson.code, complaints(ndjson)], [0, []])
    }), 60_000)

  it.effect("bounds entries: 64 for people, --limit for all", () =>
    Effect.gen(function*() {
      const { image } = yield* Image
      const entriesOf = (text: string) => text.split("\n").filter((line) => /^ {2}\S.*:/.test(line)).length
      const show = (...args: ReadonlyArray<string>) => ktstr(["maps", "show", "hash_4096", "--image", image, ...args])
      const text = yield* show()
      assert.strictEqual(entriesOf(text.stdout), 64)
      assert.include(text.stdout, "only the first 64 are shown; --limit N shows more")
      assert.strictEqual(entriesOf((yield* show("--limit", "3")).stdout), 3)
      assert.strictEqual(entriesOf((yield* show("--limit", "0")).stdout), 0)
      const [map] = (yield* decodeDocument((yield* show("--json", "--limit", "5")).stdout)).maps
      assert.deepInclude({ ...map, entries: map.entries.length }, { entries: 5, truncated: true, problem: null })
      const all = yield* decodeDocument((yield* show("--json")).stdout)
      assert.strictEqual(all.maps[0].entries.length, 4096)
    }), 60_000)

  it.effect("filters by name, id and type, and names what there is", () =>
    Effect.gen(function*() {
      const { image } = yield* Image
      const list = (...args: ReadonlyArray<string>) => ktstr(["maps", "list", "--image", image, ...args])
      const maps: ReadonlyArray<{ id: number; name: string; type: string }> =
        JSON.parse((yield* list("--json")).stdout).maps
      const idsOf = (text: string) => [...text.matchAll(/^ *(\d+) {2}/gm)].map(([, id]) => Number(id))
      assert.deepStrictEqual(idsOf((yield* list()).stdout), maps.map(({ id }) => id))
      const twins = maps.filter(({ name }) => name === "plain_hash").map(({ id }) => id)
      assert.strictEqual(twins.length, 2)
      assert.deepStrictEqual(idsOf((yield* list("--map", "plain_hash")).stdout), twins)
      assert.deepStrictEqual(idsOf((yield* list("--map", String(twins[1]))).stdout), [twins[1]])
      const lru = (yield* list("--type", "lru_hash", "--ndjson")).stdout.trimEnd().split("\n").map((line) =>
        JSON.parse(line)
      )
      assert.deepStrictEqual(lru.pop(), { record: "end", losses: 0 })
      assert.deepStrictEqual(
        lru.map(({ id }) => id),
        maps.filter(({ type }) => type === "lru_hash").map(({ id }) => id)
      )
      const none = yield* list("--type", "unspec")
      assert.deepStrictEqual([none.code, none.stdout.split("\n").at(-2)], [0, "no maps"])

      const noMap = yield* list("--map", "nope", "--json")
      assert.match(complaints(noMap).join("\n"), /^ktstr: no map nope: there are array_struct, .*, …$/)
      assert.deepStrictEqual([noMap.code, noMap.stdout], [1, ""])
      const noType = yield* list("--type", "hahs")
      assert.match(
        complaints(noType).join("\n"),
        /^ktstr: --type "hahs": kernel 6\.12\S* has no such map type; its types are .*, hash, /
      )
      assert.deepStrictEqual([noType.code, noType.stdout], [2, ""])
    }), 60_000)

  it.effect("says of what is not an image what is wrong and what to do", () =>
    Effect.gen(function*() {
      const { directory, image } = yield* Image
      const at = (name: string) => join(directory, name)
      writeFileSync(at("empty"), "")
      writeFileSync(at("text"), "not memory\n")
      writeFileSync(at("noise"), Buffer.alloc(2 ** 20, "noise"))
      mkdirSync(at("folder"))
      execFileSync("mkfifo", [at("fifo")])
      yield* copyStart(image, at("start"), 20 * 2 ** 20)
      const cases: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
        [[at("missing")], /cannot open .*missing: no such file or directory; check the path/],
        [[at("folder")], /folder: not a regular file; .*give a raw memory file/],
        [[at("empty")], /empty: only 0 bytes; .*give a raw memory file/],
        [[at("text")], /text: only 11 bytes; .*give a raw memory file/],
        [[at("noise")], /noise: no running x86-64 or arm64 Linux kernel in it; .*give a raw memory file/],
        [[at("fifo")], /fifo: not a regular file; .*give a raw memory file/],
        [["/dev/zero"], /\/dev\/zero: not a regular file; .*give a raw memory file/],
        [[at("start")], /start: no running x86-64 or arm64 Linux kernel in it; looked for .* in 20 MiB.*give/],
        [["/bin/ls"], /an ELF file, but no core; .*give/],
        [[image, "--vmlinux", at("missing")], /cannot open .*missing: no such file or directory; check the path/],
        [[image, "--vmlinux", at("text")], /text: ELF at byte 0: expected/],
        [[image, "--vmlinux", "/bin/ls"], /\/bin\/ls: .*expected .*vmlinux/]
      ]
      for (const [args, message] of cases) {
        const ran = yield* ktstr(["dump", "--json", "--image", ...args])
        const [line, ...more] = complaints(ran)
        assert.match(line, message)
        assert.match(line, /^ktstr: /)
        assert.deepStrictEqual([ran.code, ran.stdout, more], [1, "", []], args.join(" "))
      }
    }), 60_000)

  it.effect("reads memory that is cut short as far as it goes, or says why not", () =>
    Effect.gen(function*() {
      const { directory, image } = yield* Image
      const cut = join(directory, "cut")
      let read = 0
      let partly = 0
      for (const part of [0.1, 0.35, 0.6, 0.8, 0.95]) {
        yield* copyStart(image, cut, Math.floor(IMAGE_MIB * part) * 2 ** 20 + 1000)
        const ran = yield* ktstr(["dump", "--json", "--image", cut])
        const said = complaints(ran)
        if (ran.stdout !== "") {
          const { losses, maps, problems } = yield* decodeDocument(ran.stdout)
          const ofMaps = [...maps.map(({ problem }) => problem), ...problems].filter((problem) =>
            problem !== null && isLoss(problem)
          )
          const { sched } = JSON.parse(ran.stdout)
          const lost = ofMaps.length + lossesIn(sched, ({ kind }) => kind !== "corrupted").count
          assert.strictEqual(losses, lost)
          assert.deepStrictEqual([ran.code, said.length], lost === 0 ? [0, 0] : [1, 1], said.join("\n"))
          if (lost > 0) {
            assert.match(said[0], /^ktstr: \d+ parts? could not be read whole.*; give --allow-partial to accept that$/)
            const accepted = yield* ktstr(["dump", "--allow-partial", "--image", cut])
            assert.deepStrictEqual([accepted.code, complaints(accepted)], [0, []])
            assert.match(accepted.stdout, /\nincomplete: \d+ parts? could not be read whole\n$/)
            partly++
          }
          read++
        } else {
          assert.deepStrictEqual([ran.code, ran.stdout, said.length], [1, "", 1], said.join("\n"))
          assert.match(said[0], /^ktstr: .*cut/)
        }
      }
      assert.isAbove(read, 0)
      assert.isAbove(partly, 0)
    }), 120_000)

  it.effect("names a kernel's BTF that is damaged", () =>
    Effect.gen(function*() {
      const { directory, image } = yield* Image
      const header = Buffer.from("9feb010018000000", "hex")
      const damaged = yield* altered(image, join(directory, "damaged"), [header, Buffer.alloc(8, 0xff)])
      const ran = yield* ktstr(["dump", "--json", "--image", damaged])
      assert.match(complaints(ran).join("\n"), /^ktstr: BTF of kernel 6\.12\S*: BTF at byte 0: expected [^\n]*$/)
      assert.deepStrictEqual([ran.code, ran.stdout], [1, ""])
    }), 60_000)

  it.effect("keeps a guest's control characters from the terminal", () =>
    Effect.gen(function*() {
      const { directory, image } = yield* Image
      const names = [Buffer.from("hash_empty\0"), Buffer.from(`${ESC}]0;h\x07\x9b31m\0`, "latin1")] as const
      const hostile = yield* altered(image, join(directory, "hostile"), names)
      for (const args of [["dump", "--limit", "1"], ["maps", "list"], ["maps", "list", "--map", "nope"]]) {
        const { stderr, stdout } = yield* ktstr([...args, "--image", hostile])
        assert.include(stdout + stderr, "\\x1b]0;h\\x07")
        // oxlint-disable-next-line no-control-regex -- they are what it looks for
        assert.notMatch(stdout + stderr, /[\0-\t\v-\x1f\x7f-\x9f]/)
      }
    }), 60_000)

  it.effect("compares two readings of its scheduler, of one boot only", () =>
    Effect.gen(function*() {
      const { directory, image } = yield* Image
      const [same, other] = ["same.json", "other.json"].map((name) => join(directory, name))
      const shown = yield* ktstr(["sched", "show", "--image", image, "--json"])
      const document = JSON.parse(shown.stdout)
      assert.isString(document.kernel.boot)
      const [task] = document.sched.tasks
      writeFileSync(same, JSON.stringify({ ...document, sched: { ...document.sched, tasks: [{ ...task, nvcsw: 1 }] } }))
      writeFileSync(other, JSON.stringify({ ...document, kernel: { ...document.kernel, boot: "another" } }))

      const fits = new Ajv({ strict: false }).compile(JSON.parse((yield* ktstr(["sched", "diff", "--schema"])).stdout))
      const [records, dumped] = ["records.ndjson", "dumped.json"].map((name) => join(directory, name))
      writeFileSync(records, (yield* ktstr(["sched", "show", "--image", image, "--ndjson"])).stdout)
      yield* ktstr(["dump", "--image", image, "--out", dumped])
      for (const side of [image, records, dumped]) {
        const none = yield* ktstr(["sched", "diff", side, image, "--json"])
        assert.deepStrictEqual([none.code, JSON.parse(none.stdout).changes], [0, []], none.stderr)
      }
      writeFileSync(records, readFileSync(records, "utf8").replace(/\{"record":"end".*/, ""))
      const cut = yield* ktstr(["sched", "diff", records, image])
      assert.include(cut.stderr, "records.ndjson is not a scheduler's state: its last record is missing; make one with")
      assert.deepStrictEqual([cut.code, cut.stdout], [1, ""])
      const changed = yield* ktstr(["sched", "diff", same, image, "--json"])
      assert.isTrue(fits(JSON.parse(changed.stdout)), JSON.stringify(fits.errors))
      const { changes } = JSON.parse(changed.stdout)
      assert.strictEqual(changed.code, 0, changed.stderr)
      const added = changes.filter(({ change }: { readonly change: string }) => change === "taskAdded")
      assert.lengthOf(added, document.sched.tasks.length - 1)
      const ran = changes.find(({ change }: { readonly change: string }) => change === "taskChanged")
      assert.deepInclude(ran, { pid: task.pid, comm: task.comm })
      assert.deepInclude(ran.fields, {
        field: "nvcsw",
        before: 1,
        after: task.nvcsw,
        delta: task.nvcsw - 1,
        rate: null
      })
      const dump = JSON.parse(readFileSync(dumped, "utf8"))
      const [altered, broken] = ["altered.json", "broken.json"].map((name) => join(directory, name))
      writeFileSync(altered, JSON.stringify({ ...dump, sched: JSON.parse(readFileSync(same, "utf8")).sched }))
      writeFileSync(broken, JSON.stringify({ ...dump, sched: { ...dump.sched, tasks: [{ ...task, pid: "one" }] } }))
      const both = yield* ktstr(["diff", altered, image, "--json"])
      assert.deepStrictEqual([both.code, JSON.parse(both.stdout).changes], [0, []], both.stderr)
      assert.deepStrictEqual(JSON.parse(both.stdout).sched, { seconds: 0, changes })
      const told = yield* ktstr(["diff", altered, image])
      assert.match(told.stdout, /^0 s of the guest's time .*\n\+ \S+\[\d+\]\n/)
      assert.strictEqual((yield* ktstr(["diff", dumped, image])).stdout, "no difference\n")
      const notOne = yield* ktstr(["diff", broken, image])
      assert.include(notOne.stderr, "broken.json is not a dump: sched.tasks.0.pid: ")
      assert.deepStrictEqual([notOne.code, notOne.stdout], [1, ""])
      const boots = yield* ktstr(["sched", "diff", image, other])
      assert.deepStrictEqual([boots.code, boots.stdout], [1, ""])
      assert.include(boots.stderr, "come from different boots")
    }), 180_000)

  it.effect("ends well when its reader goes away, and says when the disk is full", () =>
    Effect.gen(function*() {
      const { image } = yield* Image
      for (const format of ["--ndjson", "--json", "--limit=5000"]) {
        const piped = spawnSync(
          "bash",
          [
            "-c",
            "\"$@\" | head -n 1 | wc -l; echo \"${PIPESTATUS[0]}\"",
            "bash",
            process.execPath,
            KTSTR,
            "dump",
            format,
            "--image",
            image
          ],
          { encoding: "utf8" }
        )
        assert.match(piped.stdout, /^\s*1\n0\n$/)
        assert.match(piped.stderr, /^ {2}attach: [\d.]+ m?s\n {2}read and print: [\d.]+ m?s\n$/)
      }
      const full = openSync("/dev/full", "w")
      const ran = yield* ktstr(["dump", "--ndjson", "--image", image], { stdout: full })
      closeSync(full)
      assert.deepStrictEqual(complaints(ran), ["ktstr: cannot write to stdout: ENOSPC; is the disk full?"])
      assert.strictEqual(ran.code, 1)
    }), 60_000)

  it.effect("can be interrupted while nobody reads its output", () =>
    Effect.gen(function*() {
      const { image } = yield* Image
      for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
        let said = ""
        let release = () => {}
        const ran = yield* ktstr(["dump", "--json", "--image", image], {
          unread: new Promise((resolve) => release = resolve),
          meanwhile: async (child) => {
            child.stderr?.on("data", (bytes: Buffer) => said += bytes.toString())
            await until("the attach", () => said.includes("attach"))
            await new Promise((resolve) => setTimeout(resolve, 300)) // the pipe is full by now
            child.kill(signal)
            setTimeout(release, 200)
          }
        })
        assert.deepStrictEqual([ran.code, complaints(ran)], [code, []], signal)
      }
    }), 60_000)

  it.effect("colours a terminal's text only, and not where NO_COLOR is set", () =>
    Effect.gen(function*() {
      const { directory, image } = yield* Image
      const log = join(directory, "typescript")
      const onTerminal = (env: Record<string, string>) => {
        const command = `${process.execPath} ${KTSTR} maps list --image ${image}`
        spawnSync("script", ["-qec", command, log], {
          env: { PATH: process.env["PATH"], TERM: "xterm", ...env },
          stdio: "ignore"
        })
        return readFileSync(log, "utf8")
      }
      assert.include(onTerminal({}), `${ESC}[1m6.12`)
      assert.notInclude(onTerminal({ NO_COLOR: "1" }), `${ESC}[1m`)
      assert.notInclude((yield* ktstr(["dump", "--image", image, "--limit", "1"])).stdout, ESC)
    }), 60_000)
})
