import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { DumpDocument } from "../../src/bpf/Report.ts"
import { complaints, ktstr, place, until } from "../support/cli.ts"
import { needsScx, scx } from "../support/scx.ts"

const guest = new URL("guest.sh", import.meta.url).pathname

const decodeDocument = Schema.decodeUnknown(Schema.parseJson(DumpDocument), { onExcessProperty: "error" })
const Counters = Schema.Struct({ nr_enqueued: Schema.Positive, nr_dispatched: Schema.Positive })
/** A round robin over five queues, of which queue n may give 2^n tasks in its turn. */
const CpuContext = Schema.Struct({
  dsp_idx: Schema.Literal(0, 1, 2, 3, 4),
  dsp_cnt: Schema.Int.pipe(Schema.between(0, 16))
})

describe("ktstr dump of the built kernel", () => {
  beforeEach(needsScx)

  it.scoped(
    "by its key, shows a scheduler's maps with their types, its struct_ops and its programs",
    () =>
      Effect.gen(function*() {
        const built = yield* scx
        const { cwd, env, leftovers, mark } = yield* place
        const script = `. /include-files/guest.sh
          start scx_qmap > /tmp/qmap
          for n in 1 2 3 4; do (while :; do work; sleep 0.01; done) & done
          await grep -q 'enq=[1-9]' /tmp/qmap`
        const includes = ["--include", built.scheduler("scx_qmap"), "--include", guest]
        const console = join(cwd, "console")
        const settings = ["--cpus", "2", "--timeout", "180", "--cmdline", mark, "--console", console]
        const args = ["dump", "--json", "--kernel", built.key, ...settings, ...includes, "--exec", script]
        const ran = yield* ktstr(args, { cwd, env: { ...env, KTSTR_CACHE_DIR: built.root } })
        assert.deepStrictEqual([ran.code, complaints(ran)], [0, []])
        // the kernel reaps a killed QEMU a moment after us
        yield* Effect.promise(() => until("all but the console is gone", () => leftovers().join() === "console", 5))
        assert.include(readFileSync(console, "utf8"), `sched_ext: BPF scheduler "qmap" enabled`)
        const { kernel, maps, problems, programs, source } = yield* decodeDocument(ran.stdout)
        assert.deepStrictEqual([source.kind, kernel.release, problems], ["vm", built.release, []])

        const map = (name: string) => maps.filter((each) => each.name === name)[0]
        const [bss] = map("scx_qmap.bss").entries
        assert.isTrue("value" in bss && Schema.is(Counters)(bss.value), JSON.stringify(bss))
        const [context] = map("cpu_ctx_stor").entries
        assert.isTrue(
          "cpus" in context && context.cpus.length === 2 && context.cpus.every(Schema.is(CpuContext)),
          JSON.stringify(context)
        )
        // include/linux/sched/ext.h SCX_SLICE_DFL, v6.12: 20 ms
        assert.nestedPropertyVal(map("scx_qmap.rodata").entries[0], "value.slice_ns", 20_000_000)
        assert.strictEqual(map("qmap_ops").type, "struct_ops")
        const operations = programs.filter(({ type }) => type === "struct_ops").map(({ name }) => name)
        assert.includeMembers(operations, ["qmap_init", "qmap_enqueue", "qmap_dispatch", "qmap_exit"])
      }),
    240_000
  )
})
