import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync, spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { refused } from "../bpf/live/support.ts"
import { complaints, KTSTR, ktstr, place } from "../support/cli.ts"
import { compileBpf, scratch } from "../support/guest.ts"
import { guestImage } from "../support/image.ts"

const bpftool = (...args: ReadonlyArray<string>) => execFileSync("bpftool", args).toString()

describe("programs, links and differences of an image", () => {
  it.scopedLive("are the same whether listed or shown, as JSON, records or text", () =>
    Effect.gen(function*() {
      const { cwd } = yield* place
      const image = yield* guestImage
      const json = yield* ktstr(["progs", "list", "--image", image, "--json"], { cwd })
      assert.deepStrictEqual([json.code, complaints(json)], [0, []])
      const { programs, source } = JSON.parse(json.stdout)
      assert.deepStrictEqual(source, { kind: "image", path: image })
      assert.isAbove(programs.length, 2)
      const [first] = programs
      const shown = yield* ktstr(["progs", "show", String(first.id), "--image", image, "--ndjson"], { cwd })
      assert.deepStrictEqual(shown.stdout.trimEnd().split("\n").map((line) => JSON.parse(line)), [
        { record: "program", ...first },
        { record: "end", losses: 0 }
      ])
      const text = yield* ktstr(["progs", "list", "--image", image], { cwd })
      for (const { name } of programs) assert.include(text.stdout, ` ${name} `)
      const none = yield* ktstr(["progs", "show", "nobody", "--image", image], { cwd })
      assert.match(none.stderr, /ktstr: no program nobody: there are /)
      assert.strictEqual(none.code, 1)
      const links = yield* ktstr(["links", "--image", image, "--json"], { cwd })
      const document = JSON.parse(links.stdout)
      assert.deepStrictEqual([links.code, document.problems], [0, []])
    }))

  it.scopedLive("a dump goes whole into a file, and differs from another by what changed", () =>
    Effect.gen(function*() {
      const { cwd } = yield* place
      const image = yield* guestImage
      const args = ["dump", "--image", image, "--map", "array_struct"]
      const before = join(cwd, "before.json")
      const out = yield* ktstr([...args, "--out", before], { cwd })
      assert.deepStrictEqual([out.code, out.stdout, complaints(out)], [0, "", []])
      const json = yield* ktstr([...args, "--json"], { cwd })
      assert.strictEqual(readFileSync(before, "utf8"), json.stdout)
      const same = yield* ktstr(["diff", before, image, "--json"], { cwd })
      assert.strictEqual(same.code, 0, same.stderr)

      const changed = JSON.parse(json.stdout)
      const [entry] = changed.maps[0].entries
      entry.value.u16 = (entry.value.u16 + 7) % 65536
      const after = join(cwd, "after.json")
      writeFileSync(after, JSON.stringify(changed))
      const diff = yield* ktstr(["diff", before, after, "--ndjson"], { cwd })
      const changes = diff.stdout.trimEnd().split("\n").map((line) => JSON.parse(line)).filter((each) =>
        each.change === "entryChanged"
      )
      assert.strictEqual(changes.length, 1, diff.stdout)
      assert.deepStrictEqual([changes[0].key, changes[0].fields.length, changes[0].fields[0].path], [
        entry.key,
        1,
        "u16"
      ])
      assert.strictEqual(changes[0].fields[0].after, entry.value.u16)
      const nothing = yield* ktstr(["diff", before, before], { cwd })
      assert.deepStrictEqual([nothing.code, nothing.stdout], [0, "no difference\n"])

      mkdirSync(join(cwd, "directory"))
      const unwritable = yield* ktstr([...args, "--out", join(cwd, "none", "x")], { cwd })
      assert.match(unwritable.stderr, /ktstr: cannot write .*none\/x: .*; give a writable path/)
      assert.strictEqual(unwritable.code, 1)
      assert.deepStrictEqual(readdirSync(cwd).toSorted(), ["after.json", "before.json", "directory"])
    }))

  const usage: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
    [["dump", "--live", "--image", "x"], /--image does not go with --live/],
    [["maps", "list", "--live", "--cpus", "2"], /--cpus does not go with --live/],
    [["progs", "list", "--live", "--image", "x"], /--image does not go with --live/],
    [["links", "--live", "--cpus", "2"], /--cpus does not go with --live/],
    [["maps", "write", "--live", "--racy", "--map", "x", "--key", "1", "=2"], /--racy goes with --kernel/],
    [["maps", "write", "--image", "x", "a=1"], /maps write has no option --image/],
    [["maps", "write", "--kernel", "x", "nothing"], /"nothing" sets nothing: write VARIABLE\.PATH=VALUE/],
    [["watch"], /say what to watch: --live, the maps of this host, or --kernel/],
    [["watch", "--live", "--every", "soon"], /--every needs a time such as 1s, 250ms or 2m/]
  ]
  for (const [args, message] of usage) {
    it.effect(`${args.join(" ")}: wrong usage`, () =>
      Effect.gen(function*() {
        const ran = yield* ktstr(args)
        assert.match(ran.stderr, message)
        assert.deepStrictEqual([ran.code, ran.stdout], [2, ""])
      }))
  }
})

describe("a VM's maps", () => {
  it.scopedLive("are watched by freezing it again and again, and it goes on between", () =>
    Effect.gen(function*() {
      const { cwd, env, leftovers, mark } = yield* place
      const script = `
        bpftool map create /sys/fs/bpf/counter type array key 4 value 4 entries 1 name counter
        (n=0; while :; do n=$((n + 1)); bpftool map update pinned /sys/fs/bpf/counter key 0 0 0 0 value $n 0 0 0; done) &`
      const words = [
        "--kernel",
        "debian:6.12-cloud",
        "--include",
        "/usr/sbin/bpftool",
        "--exec",
        script,
        "--cmdline",
        mark
      ]
      const cache = { KTSTR_CACHE_DIR: process.env["KTSTR_CACHE_DIR"], HOME: process.env["HOME"] }
      const watched = yield* ktstr(["watch", ...words, "--map", "counter", "--every", "300ms", "--ndjson"], {
        cwd,
        env: { ...env, ...cache },
        meanwhile: async (child) => {
          let seen = ""
          await new Promise<void>((resolve) =>
            child.stdout?.on("data", (data: Buffer) => {
              seen += data.toString()
              if (seen.split("entryChanged").length > 3) resolve()
            })
          )
          child.kill("SIGINT")
        }
      })
      assert.strictEqual(watched.code, 130, watched.stderr)
      const records = watched.stdout.trimEnd().split("\n").map((line) => JSON.parse(line))
      const changes = records.filter((each) => each.change === "entryChanged")
      assert.isAtLeast(changes.length, 3)
      for (const { fields, key, name } of changes) assert.deepStrictEqual([name, key, fields.length], ["counter", 0, 1])
      assert.deepStrictEqual(leftovers(), [])
    }), 120_000)

  it.scopedLive("are written while it runs, without a freeze", () =>
    Effect.gen(function*() {
      const { cwd, env, leftovers, mark } = yield* place
      const script = `
        bpftool map create /sys/fs/bpf/poked type array key 4 value 4 entries 3 name poked
        (while :; do echo "SEEN $(bpftool -j map lookup pinned /sys/fs/bpf/poked key 1 0 0 0)"; sleep 0.2; done) &`
      const cache = { KTSTR_CACHE_DIR: process.env["KTSTR_CACHE_DIR"], HOME: process.env["HOME"] }
      const machine = ["--kernel", "debian:6.12-cloud", "--include", "/usr/sbin/bpftool", "--cmdline", mark]
      const write = ["--map", "poked", "--key", "1", "--until", "SEEN.*0x2a", "=2a000000", "--json"]
      const ran = yield* ktstr(["maps", "write", ...machine, "--exec", script, "--racy", ...write], {
        cwd,
        env: { ...env, ...cache }
      })
      assert.deepStrictEqual([ran.code, complaints(ran)], [0, []], ran.stderr)
      const { consistency, line, written } = JSON.parse(ran.stdout)
      assert.deepStrictEqual([consistency, written.length], ["racing", 1])
      assert.deepInclude(written[0], { mapName: "poked", path: "", cpu: null, before: "00000000", after: "2a000000" })
      assert.match(line, /^SEEN .*"value":\["0x2a","0x00","0x00","0x00"\]/)
      assert.notMatch(ran.stderr, /freeze/)
      assert.deepStrictEqual(leftovers(), [])
    }), 120_000)
})

describe.skipIf(refused !== undefined)(
  `the running kernel's maps${refused === undefined ? "" : `: ${refused}`}`,
  () => {
    /** A pinned hash of this run; its entries by bpftool. */
    const made = Effect.acquireRelease(
      Effect.sync(() => {
        const name = `kt_${process.pid}`
        const pin = `/sys/fs/bpf/${name}`
        bpftool("map", "create", pin, "type", "hash", "key", "4", "value", "3", "entries", "1000", "name", name)
        for (let key = 1; key <= 40; key++) {
          bpftool("map", "update", "pinned", pin, "key", ...bytes(key, 4), "value", ...bytes(key * 77777, 3))
        }
        return { name, pin }
      }),
      ({ pin }) => Effect.sync(() => rmSync(pin))
    )
    const bytes = (value: number, length: number) =>
      Array.from({ length }, (_, byte) => String((value >> (8 * byte)) & 255))

    it.live("are watched only as long as somebody reads", () =>
      Effect.sync(() => {
        const command = `{ "$0" "$1" watch --live --every 100ms --ndjson; echo "$?" >&2; } | head -n 1`
        const { status, stderr, stdout } = spawnSync("sh", ["-c", command, process.execPath, KTSTR], {
          encoding: "utf8",
          timeout: 60_000
        })
        assert.strictEqual(JSON.parse(stdout).record, "tick")
        assert.deepStrictEqual([status, stderr], [0, "0\n"])
      }))

    it.scopedLive("are listed and dumped as bpftool does, and watched while they change", () =>
      Effect.gen(function*() {
        const { name, pin } = yield* made
        const list = yield* ktstr(["maps", "list", "--live", "--json"])
        assert.strictEqual(list.code, 0, list.stderr)
        const info = JSON.parse(list.stdout).maps.find((map: { name: string }) => map.name === name)
        const theirs = JSON.parse(bpftool("-j", "map", "show", "pinned", pin))
        assert.deepStrictEqual(
          [info.id, info.type, info.keySize, info.valueSize, info.maxEntries],
          [theirs.id, theirs.type, theirs.bytes_key, theirs.bytes_value, theirs.max_entries]
        )
        const dump = yield* ktstr(["dump", "--live", "--map", name, "--json"])
        const document = JSON.parse(dump.stdout)
        assert.deepStrictEqual([document.source, document.freeze, document.maps[0].consistency], [
          { kind: "live" },
          null,
          "racing"
        ])
        const plain = (entries: ReadonlyArray<{ key: ReadonlyArray<string>; value: ReadonlyArray<string> }>) =>
          entries.map(({ key, value }) =>
            [key, value].map((part) => part.map((byte) => byte.slice(2)).join("")).join(":")
          )
        assert.sameMembers(
          document.maps[0].entries.map(({ key, value }: { key: string; value: string }) => `${key}:${value}`),
          plain(JSON.parse(bpftool("-j", "map", "dump", "pinned", pin)))
        )

        const write = (...args: ReadonlyArray<string>) =>
          ktstr(["maps", "write", "--live", "--map", name, "--key", ...args])
        const look = (key: string) =>
          bpftool("map", "lookup", "pinned", pin, "key", "hex", ...key.match(/../g)!).replaceAll(/\s+/g, " ")
        const written = yield* write("02000000", "=0a0b0c")
        assert.deepStrictEqual(
          [written.code, written.stdout],
          [0, `map ${info.id} (${name}): written\n`],
          written.stderr
        )
        assert.include(look("02000000"), "value: 0a 0b 0c")
        for (
          const [args, message] of [
            [
              ["02000000", "=0a0b0c", "--create"],
              /was not written: it already has an entry "02000000" \(mode: create\)/
            ],
            [
              ["000000ff", "=0a0b0c", "--existing"],
              /was not written: it has no entry "000000ff" \(mode: existing\)/
            ],
            [["02000000", "=0a0b0c0d"], /3 bytes|6 hex/],
            [["02000000", "field=1"], /--live takes =VALUE/],
            [["02000000"], /give =VALUE, or --delete/]
          ] as const
        ) {
          const ran = yield* write(...args)
          assert.match(ran.stderr, message)
          assert.include([1, 2], ran.code)
        }
        const deleted = yield* write("02000000", "--delete")
        assert.strictEqual(deleted.stdout, `map ${info.id} (${name}): deleted\n`)
        assert.throws(() => look("02000000"))

        let change: NodeJS.Timeout | undefined
        const watched = yield* ktstr(["watch", "--live", "--map", name, "--every", "100ms", "--ndjson"], {
          meanwhile: async (child) => {
            let seen = ""
            await new Promise<void>((resolve) => {
              child.stdout?.on("data", (data: Buffer) => {
                seen += data.toString()
                if (seen.includes("entryChanged")) resolve()
              })
              let value = 0
              change = setInterval(() => {
                bpftool("map", "update", "pinned", pin, "key", ...bytes(1, 4), "value", ...bytes(++value, 3))
              }, 50)
            })
            clearInterval(change)
            child.kill("SIGINT")
          }
        })
        assert.strictEqual(watched.code, 130, watched.stderr)
        const changes = watched.stdout.trimEnd().split("\n").map((line) => JSON.parse(line))
        assert.strictEqual(changes[0].record, "tick")
        assert.isTrue(changes.some((each) => each.change === "entryChanged" && each.key === "01000000"))
      }), 60_000)

    it.scopedLive("are inside a map of maps, and shown with it when asked for", () =>
      Effect.gen(function*() {
        const inner = yield* made
        const outer = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const name = `kto_${process.pid}`
            const pin = `/sys/fs/bpf/${name}`
            const type = ["type", "hash_of_maps", "key", "4", "value", "4", "entries", "2", "name", name]
            bpftool("map", "create", pin, ...type, "inner_map", "pinned", inner.pin)
            bpftool("map", "update", "pinned", pin, "key", ...bytes(7, 4), "value", "pinned", inner.pin)
            return { name, pin }
          }),
          ({ pin }) => Effect.sync(() => rmSync(pin))
        )
        const show = (...args: ReadonlyArray<string>) => ktstr(["maps", "show", outer.name, "--live", ...args])
        const entry = (ran: { readonly stdout: string }) => JSON.parse(ran.stdout).maps[0].entries[0]
        const { key, value } = entry(yield* show("--inner", "--json"))
        const alone = JSON.parse((yield* ktstr(["maps", "show", inner.name, "--live", "--json"])).stdout).maps[0]
        assert.deepStrictEqual(key, "07000000")
        assert.deepStrictEqual(value, {
          id: alone.id,
          name: inner.name,
          type: "hash",
          entries: alone.entries,
          truncated: false,
          problem: null
        })
        assert.lengthOf(value.entries, 40)
        assert.deepStrictEqual(entry(yield* show("--json")).value, { id: alone.id, name: inner.name, type: "hash" })
        const text = yield* show("--inner", "--limit", "3")
        assert.match(
          text.stdout,
          new RegExp(`^  \\{ 07 00 00 00 \\}: #${alone.id} ${inner.name}  hash\\n      \\{`, "m")
        )
        assert.include(text.stdout, "      only the first 3 are shown")
      }))

    it.scopedLive("have programs and links, listed as bpftool lists them", () =>
      Effect.gen(function*() {
        const directory = yield* Effect.provide(scratch, NodeContext.layer)
        const [object] = yield* compileBpf(directory, "diff")
        const pins = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const pins = `/sys/fs/bpf/ktp_${process.pid}`
            bpftool("prog", "loadall", object, pins)
            return pins
          }),
          (pins) => Effect.sync(() => execFileSync("rm", ["-r", pins]))
        )
        const theirs = JSON.parse(bpftool("-j", "prog", "show", "pinned", `${pins}/step`))
        const ran = yield* ktstr(["progs", "show", String(theirs.id), "--live", "--json"])
        assert.deepStrictEqual([ran.code, complaints(ran)], [0, []])
        const { programs: [ours], source } = JSON.parse(ran.stdout)
        assert.deepStrictEqual(source, { kind: "live" })
        assert.deepStrictEqual(
          [ours.id, ours.name, ours.type, ours.tag, ours.uid, ours.mapIds, ours.btfId],
          [theirs.id, theirs.name, theirs.type, theirs.tag, theirs.uid, theirs.map_ids, theirs.btf_id]
        )
        assert.deepStrictEqual(
          [ours.instructions * 8, ours.jitedBytes, ours.problem],
          [theirs.bytes_xlated, theirs.bytes_jited, null]
        )
        const listed = JSON.parse((yield* ktstr(["progs", "list", "--live", "--json"])).stdout)
        const ids = (list: ReadonlyArray<{ readonly id: number }>) => list.map(({ id }) => id)
        assert.deepStrictEqual(ids(listed.programs), ids(JSON.parse(bpftool("-j", "prog", "list"))))
        const links = JSON.parse((yield* ktstr(["links", "--live", "--json"])).stdout)
        assert.deepStrictEqual(ids(links.links), ids(JSON.parse(bpftool("-j", "link", "list"))))
        assert.match(links.problems[0].text, /^what is attached without a link is not listed/)
      }))
  }
)
