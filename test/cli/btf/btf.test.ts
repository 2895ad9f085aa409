import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { execFileSync } from "node:child_process"
import { copyFileSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { BtfDifference, BtfHeaderReport, BtfTypes } from "../../../src/cli/btf/btfReport.ts"
import { BlobWriter } from "../../btf/BlobWriter.ts"
import { ktstr, place } from "../../support/cli.ts"
import { kernelImage } from "../../support/kernels.ts"

const HOST = "/sys/kernel/btf/vmlinux"
const noHost = !existsSync(HOST)

const decoded = <A, I>(schema: Schema.Schema<A, I>, text: string) =>
  Schema.decode(Schema.parseJson(schema), { onExcessProperty: "error" })(text)

/** Compiled in `cwd`: a BPF object that holds these types. */
const object = (cwd: string, name: string, source: string): string => {
  writeFileSync(join(cwd, `${name}.c`), source)
  execFileSync("clang", ["-g", "-target", "bpf", "-c", `${name}.c`, "-o", `${name}.o`], { cwd })
  return join(cwd, `${name}.o`)
}

describe("ktstr btf show", () => {
  if (noHost) it.skip(`${HOST} does not exist here`, () => {})
  it.effect.skipIf(noHost)("prints this host's types, to people and to programs", () =>
    Effect.gen(function*() {
      const text = yield* ktstr(["btf", "show", "struct", "list_head", "typedef pid_t"])
      assert.strictEqual(
        text.stdout,
        "struct list_head {\n"
          + "\tstruct list_head *         next;                 /*     0     8 */\n"
          + "\tstruct list_head *         prev;                 /*     8     8 */\n"
          + "\n\t/* size: 16, members: 2 */\n};\n"
          + "\ntypedef __kernel_pid_t pid_t; /* size: 4 */\n"
      )
      assert.deepStrictEqual([text.code, text.stderr], [0, ""])
      const json = yield* ktstr(["btf", "show", "sk_buff", "pid_type", "--json"])
      const { subject, types } = yield* decoded(BtfTypes, json.stdout)
      assert.strictEqual(subject, HOST)
      assert.deepStrictEqual(types.map(({ kind, name }) => [kind, name]), [["STRUCT", "sk_buff"], ["ENUM", "pid_type"]])
      const [buffer, pidType] = types
      assert.strictEqual(buffer.members?.[0].name, "")
      assert.strictEqual(buffer.members?.[0].members?.[0].members?.[0].name, "next")
      assert.strictEqual(buffer.members?.find(({ name }) => name === "cloned")?.bits?.size, 1)
      assert.deepStrictEqual(pidType.values?.[0], { name: "PIDTYPE_PID", value: 0 })
      assert.strictEqual(json.code, 0)
    }))

  it.scoped("prints those of a kernel by its id, and keeps their BTF in the cache", () =>
    Effect.gen(function*() {
      const image = yield* kernelImage("6.12")
      const { cwd, env } = yield* place
      const entry = join(cwd, "cache", "some-kernel")
      mkdirSync(entry, { recursive: true })
      copyFileSync(image, join(entry, "bzImage"))
      const options = { cwd, env: { ...env, KTSTR_CACHE_DIR: join(cwd, "cache") } }
      const first = yield* ktstr(["btf", "show", "bpf_map", "--kernel", "./cache/some-kernel"], options)
      assert.match(first.stdout, /^struct bpf_map \{\n/)
      assert.strictEqual(first.code, 0)
      assert.deepStrictEqual(readdirSync(entry), ["bzImage", "bzImage.btf"])
      const again = yield* ktstr(["btf", "show", "bpf_map", "--btf", "cache/some-kernel/bzImage"], options)
      assert.strictEqual(again.stdout, first.stdout)
      const pahole = execFileSync("pahole", ["-F", "btf", "-C", "bpf_map", join(entry, "bzImage.btf")], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"]
      })
      const lines = first.stdout.split("\n").filter((line) => line.endsWith(" */") && line.includes(";"))
      assert.isAbove(lines.length, 20)
      const squeezed = (text: string) => text.replaceAll(/ +/g, " ")
      for (const line of lines) assert.include(squeezed(pahole), squeezed(line))
      writeFileSync(join(entry, "bzImage.btf"), Buffer.concat([Buffer.from([0x9f, 0xeb]), Buffer.alloc(100)]))
      const damaged = yield* ktstr(["btf", "show", "bpf_map", "--kernel", "./cache/some-kernel"], options)
      assert.strictEqual(damaged.stdout, first.stdout)
      assert.match(damaged.stderr, /bzImage\.btf is damaged: .*; the BTF is read from its kernel again/)
    }), 120_000)

  it.scoped("says which names are near one that no type has, and which words are wrong", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      const file = object(cwd, "a", "struct thing { int a; } thing;")
      for (
        const [args, code, message] of [
          [["show", "--btf", file, "thinng"], 1, `${file}: no type "thinng"; there is struct thing, thing`],
          [
            ["show", "--btf", file, "nothing_like"],
            1,
            `no type "nothing_like"; is it misspelt, or was this built without it?`
          ],
          [["show", "--btf", file], 2, "say which type to show"],
          [["show", "--btf", file, "--kernel", "x", "thing"], 2, "give --kernel or --btf, not both"],
          [["show", "--base", file, "thing"], 2, "--base goes with --btf"],
          [["show", "--btf", "./none", "thing"], 1, "./none: no such file"],
          [["header", "--btf", "/bin/busybox"], 1, "/bin/busybox: no .BTF section"],
          [
            ["diff", file, file, "int"],
            2,
            "\"int\" is not a struct, union, enum or typedef: btf diff compares only those"
          ],
          [["diff", file, file, "thinng"], 1, "no type \"thinng\""],
          [["diff", file], 2, "Missing argument <b>"]
        ] as const
      ) {
        const ran = yield* ktstr(["btf", ...args], { cwd, env })
        assert.include(ran.stderr, message)
        assert.match(ran.stderr, /^ktstr: [^\n]+\n$/)
        assert.deepStrictEqual([ran.code, ran.stdout], [code, ""])
      }
    }))

  it.scoped("spells out names that a terminal would act on", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      const writer = new BlobWriter()
      const int = writer.int("int", 4)
      writer.struct("evil", 4, [{ name: "\x1b[31mred\n", type: int, bits: 0 }])
      writeFileSync(join(cwd, "evil.btf"), writer.bytes())
      const ran = yield* ktstr(["btf", "show", "--btf", "evil.btf", "evil"], { cwd, env })
      assert.notInclude(ran.stdout, "\x1b")
      assert.include(ran.stdout, "\\x1b[31mred")
    }))
})

describe("ktstr btf header", () => {
  it.scoped("counts what bpftool lists, of a module on its base too", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      const below = new BlobWriter()
      const int = below.int("int", 4)
      writeFileSync(join(cwd, "base.btf"), below.bytes())
      const writer = new BlobWriter({ endId: 2, strings: below.stringLength })
      writer.struct("module_thing", 4, [{ name: "m", type: int, bits: 0 }])
      writeFileSync(join(cwd, "module.btf"), writer.bytes())
      const split = ["--btf", "module.btf", "--base", "base.btf"]
      const json = yield* ktstr(["btf", "header", ...split, "--json"], { cwd, env })
      const header = yield* decoded(BtfHeaderReport, json.stdout)
      assert.deepStrictEqual(
        [header.types, header.kinds, header.base],
        [{ first: 2, count: 1 }, { STRUCT: 1 }, { subject: "base.btf", types: 1 }]
      )
      const text = yield* ktstr(["btf", "header", ...split], { cwd, env })
      assert.match(text.stdout, /^types +1, ids 2 to 2, \d+ bytes at 24\n/m)
      assert.match(text.stdout, /^base +base\.btf, ids 1 to 1\n/m)
      assert.match(text.stdout, /^STRUCT +1\n/m)
      const shown = yield* ktstr(["btf", "show", ...split, "module_thing"], { cwd, env })
      assert.match(shown.stdout, /int +m;/)
      const alone = yield* ktstr(["btf", "show", "--btf", "module.btf", "module_thing"], { cwd, env })
      assert.strictEqual(alone.code, 1)
    }))

  it.effect.skipIf(noHost)("of this host", () =>
    Effect.gen(function*() {
      const { kinds, types } = yield* decoded(BtfHeaderReport, (yield* ktstr(["btf", "header", "--json"])).stdout)
      const listed = execFileSync("bpftool", ["btf", "dump", "file", HOST], { encoding: "utf8", maxBuffer: 2 ** 28 })
      const theirs: Record<string, number> = {}
      for (const [, kind] of listed.matchAll(/^\[\d+\] (\w+)/gm)) theirs[kind] = (theirs[kind] ?? 0) + 1
      assert.deepStrictEqual({ ...kinds }, theirs)
      assert.strictEqual(types.count, Object.values(theirs).reduce((sum, count) => sum + count, 0))
    }), 120_000)
})

describe("ktstr btf diff", () => {
  it.scoped("says what moved, came and went", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      object(cwd, "a", "struct s { char c; int old; int *p; }; struct gone { int a; } gone; struct s s;")
      object(cwd, "b", "struct s { int old; char c; long *p; int more; }; struct s s; struct fresh { int a; } fresh;")
      const run = (...args: ReadonlyArray<string>) => ktstr(["btf", "diff", ...args], { cwd, env })
      const one = yield* run("a.o", "./b.o", "struct", "s")
      assert.strictEqual(
        one.stdout,
        "struct s: 16 bytes, now 24\n"
          + "  ~ c: moved from 0 to 4\n"
          + "  ~ old: moved from 4 to 0\n"
          + "  ~ p: retyped from int * to long *\n"
          + "  + more: int at 16, 4 bytes\n"
      )
      assert.deepStrictEqual([one.code, one.stderr], [0, ""])
      assert.strictEqual((yield* run("a.o", "a.o", "s")).stdout, "s: no difference\n")
      assert.strictEqual((yield* run("a.o", "b.o", "gone")).stdout, "struct gone: gone, it had 4 bytes\n")
      assert.strictEqual((yield* run("a.o", "b.o", "fresh")).stdout, "struct fresh: new, 4 bytes\n")
      assert.strictEqual((yield* run("a.o", "a.o")).stdout, "no difference in structs, unions, enums and typedefs\n")
      const all = yield* run("a.o", "b.o")
      assert.match(
        all.stdout,
        /^CHANGED +SIZE +ADDED +REMOVED +MOVED +RESIZED +RETYPED +VALUES\nstruct s +16 → 24 +1 +2 +1\n/
      )
      assert.match(
        all.stdout,
        /only in a\.o\n {2}struct gone\n\nonly in b\.o\n {2}struct fresh\n\n1 changed, 1 gone, 1 new\n/
      )
      const { after, before, types } = yield* decoded(BtfDifference, (yield* run("a.o", "b.o", "--json")).stdout)
      assert.deepStrictEqual([before, after], ["a.o", "b.o"])
      assert.deepStrictEqual(types.map(({ members, type }) => [type, members.length]), [
        ["struct fresh", 0],
        ["struct gone", 0],
        ["struct s", 4]
      ])
    }))

  it.scoped("gives no size of what has none: a typedef of a function", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      object(cwd, "a", "typedef int f_t(int); typedef int g_t(void); f_t *f; g_t *g;")
      object(cwd, "b", "typedef int f_t(long); typedef int h_t(void); f_t *f; h_t *h;")
      const { stdout } = yield* ktstr(["btf", "diff", "a.o", "b.o", "f_t", "g_t", "h_t"], { cwd, env })
      assert.strictEqual(
        stdout,
        "typedef f_t: changed\n  ~ retyped from int (int) to int (long)\n\ntypedef g_t: gone\n\ntypedef h_t: new\n"
      )
    }))

  it.scoped("says which values of enums and what typedefs stand for are others", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      object(cwd, "a", "enum e { A, B, C }; typedef int n_t; typedef struct { int m; } s_t; enum e e; n_t n; s_t s;")
      object(
        cwd,
        "b",
        "enum e { A = 2, B = 1, D }; typedef long n_t; typedef struct { long m; } s_t; enum e e; n_t n; s_t s;"
      )
      const run = (...args: ReadonlyArray<string>) => ktstr(["btf", "diff", "a.o", "b.o", ...args], { cwd, env })
      const asked = yield* run("enum", "e", "typedef", "n_t", "s_t")
      assert.strictEqual(
        asked.stdout,
        "enum e: 4 bytes, as before\n"
          + "  ~ A: was 0, is 2\n"
          + "  - C = 2\n"
          + "  + D = 2\n"
          + "\ntypedef n_t: 4 bytes, now 8\n"
          + "  ~ retyped from int to long\n"
          + "\ntypedef s_t: 4 bytes, now 8\n"
          + "  ~ m: resized from 4 bytes to 8 bytes, retyped from int to long\n"
      )
      assert.deepStrictEqual([asked.code, asked.stderr], [0, ""])
      const all = yield* run()
      assert.match(all.stdout, /^enum e +4 +1 +1 +1\ntypedef n_t +4 → 8 +1\ntypedef s_t +4 → 8 +1 +1\n/m)
      const { types } = yield* decoded(BtfDifference, (yield* run("--json")).stdout)
      assert.deepStrictEqual(types.map(({ aliased, type, values }) => [type, values.length, aliased]), [
        ["enum e", 3, null],
        ["typedef n_t", 0, { before: "int", after: "long" }],
        ["typedef s_t", 0, null]
      ])
    }))

  it.scoped("compares kernels by their ids", () =>
    Effect.gen(function*() {
      const { cwd, env } = yield* place
      for (const series of ["6.1", "6.12"] as const) {
        mkdirSync(join(cwd, series))
        copyFileSync(yield* kernelImage(series), join(cwd, series, "bzImage"))
      }
      const ran = yield* ktstr(["btf", "diff", "./6.1", "./6.12", "bpf_map", "list_head"], { cwd, env })
      assert.match(ran.stdout, /^struct bpf_map: \d+ bytes, now \d+\n/)
      assert.match(ran.stdout, /\nlist_head: no difference\n$/)
      assert.strictEqual(ran.code, 0)
      assert.deepStrictEqual(readdirSync(join(cwd, "6.1")), ["bzImage"], "no sidecar outside of the cache")
    }), 120_000)
})
