import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { build } from "esbuild"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { Btf } from "../../../src/btf/Btf.ts"
import { ByteSink } from "../../../src/btf/render/ByteSink.ts"
import { compile } from "../../../src/btf/render/Codec.ts"
import { hiddenBytes } from "../../../src/btf/render/HiddenBytes.ts"
import { run } from "../../../src/btf/render/JsonCodec.ts"
import { type JsonPlan, valuePlan } from "../../../src/btf/render/JsonPlan.ts"
import { toJson } from "../../../src/btf/render/RenderedValue.ts"
import { renderPlan } from "../../../src/btf/render/RenderPlan.ts"

const HOST = "/sys/kernel/btf/vmlinux"
/** Values for which a plan is interpreted, before it gets a function. */
const COLD = 511

/**
 * Bytes that a generator of Park and Miller's makes of a seed. A third of them are 0, so that texts end and numbers vary; of
 * every other seed nearly all are, so that some values hide nothing.
 */
const bytesOf = (seed: number, length: number): Uint8Array => {
  let state = seed + 1
  return Uint8Array.from({ length }, () => {
    state = (state * 48271) % 0x7fff_ffff
    return (seed % 2 === 0 ? state % 3 === 0 : state % 23 !== 0) ? 0 : (state >>> 8) & 0xff
  })
}

/** Write a value through a plan, as UTF-8 text; and whether that hides bytes. */
const written = (plan: JsonPlan, bytes: Uint8Array): readonly [text: string, hides: boolean] => {
  const sink = new ByteSink(8)
  const hides = run(plan, new DataView(bytes.buffer), 0, sink)
  return [Buffer.from(sink.take()).toString(), hides]
}

it("the functions that are made of plans write what the plans write, for structs of a real kernel", () => {
  const btf = Either.getOrThrow(Btf.parse(readFileSync(HOST), { subject: "vmlinux" }))
  let made = 0
  let interpreted = 0
  const found = { hiding: 0, telling: 0 }
  for (let id = 1; made < 400 && btf.type(id) !== undefined; id += 7) {
    const size = btf.sizeOf(id) ?? 0
    if (btf.type(id)?.kind !== "STRUCT" || size === 0 || size > 512) continue
    const render = renderPlan(btf, id)
    const hidden = hiddenBytes(render, size)
    const plan = valuePlan(render, hidden)
    const values = Array.from({ length: 20 }, (_, seed) => bytesOf(id * 20 + seed, size))
    const before = values.map((value) => written(plan, value))
    assert.isNull(plan.writer)
    const tree = compile(btf, id).tree
    for (const [index, value] of values.entries()) {
      const view = new DataView(value.buffer)
      const hides = hidden?.check(view, 0) ?? false
      assert.deepStrictEqual(before[index], [JSON.stringify(toJson(tree(view, 0))), hides])
      if (hidden !== null) found[hides ? "hiding" : "telling"]++
    }
    plan.runs = COLD
    written(plan, values[0])
    if (plan.writer === null) interpreted++
    else made++
    assert.deepStrictEqual(values.map((value) => written(plan, value)), before, btf.nameOf(id))
  }
  assert.strictEqual(made, 400)
  assert.isBelow(interpreted, 10)
  assert.isAbove(found.hiding, 100)
  assert.isAbove(found.telling, 100)
}, 60_000)

it.effect("a process that forbids code from strings goes on interpreting", () =>
  Effect.promise(async () => {
    const { outputFiles: [{ text: library }] } = await build({
      stdin: {
        contents: `
          import { readFileSync, writeSync } from "node:fs"
          import { Btf } from "./src/btf/Btf.ts"
          import { ByteSink } from "./src/btf/render/ByteSink.ts"
          import { compile } from "./src/btf/render/Codec.ts"
          const btf = Btf.parse(readFileSync("${HOST}"), { subject: "vmlinux" }).right
          const codec = compile(btf, btf.idsByName("list_head")[0])
          const view = new DataView(new ArrayBuffer(16))
          const seen = new Set()
          for (let turn = 0; turn < ${COLD * 2}; turn++) {
            const sink = new ByteSink()
            codec.json(view, 0, sink)
            seen.add(Buffer.from(sink.take()).toString())
          }
          writeSync(1, [...seen].join())
        `,
        resolveDir: new URL("../../..", import.meta.url).pathname
      },
      bundle: true,
      platform: "node",
      format: "cjs",
      write: false
    })
    const node = ["--disallow-code-generation-from-strings", "-"]
    const said = execFileSync(process.execPath, node, { input: library }).toString()
    assert.strictEqual(said, "{\"next\":\"0x0\",\"prev\":\"0x0\"}")
  }), 60_000)
