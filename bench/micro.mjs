// Times one small thing that others do over and over, in a fresh process: nanoseconds each, the best of several rounds,
// since a noisy machine only ever adds.
//     node bench/micro.mjs layout|codec|escape|kallsyms|walk [IMAGE]
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { openImage } from "ktstr"
import { Btf, ByteSink, compile, layout } from "ktstr/btf"
import * as Native from "ktstr/native"
import { readFileSync } from "node:fs"
import { escapeText } from "../dist/core/EscapeText.js"

const [name, image] = process.argv.slice(2)

/** Nanoseconds of one of the `count` things that a round does; rounds for at least a second. */
const best = (count, round) => {
  let least = Infinity
  for (const end = performance.now() + 1500; performance.now() < end;) {
    const start = performance.now()
    round()
    least = Math.min(least, (performance.now() - start) * 1e6 / count)
  }
  console.log(JSON.stringify({ ns: least, count }))
}

const btf = () => Either.getOrThrow(Btf.parse(readFileSync("/sys/kernel/btf/vmlinux"), { subject: "vmlinux" }))

/** Use the kernel in the image. */
const withKernel = (use) =>
  openImage(image).pipe(
    Effect.map(({ kernel }) => use(kernel)),
    Effect.scoped,
    Effect.provide(Native.layer),
    Effect.runPromise
  )

const FIELDS = ["pid", "tgid", "comm", "se.vruntime", "cpus_ptr", "real_parent", "tasks", "prio", "static_prio", "mm"]

const rows = {
  /** Places of ten members of task_struct. */
  layout: () => {
    const types = btf()
    best(100, () => {
      for (let n = 0; n < 100; n++) Either.getOrThrow(layout(types, "task_struct", FIELDS))
    })
  },
  /** A whole task_struct as JSON. */
  codec: () => {
    const types = btf()
    const codec = compile(types, types.idsByName("task_struct")[0])
    const bytes = Uint8Array.from({ length: codec.size }, (_, at) => (at * 37) & 0x7f)
    const view = new DataView(bytes.buffer)
    const sink = new ByteSink()
    codec.json(view, 0, sink)
    best(20, () => {
      for (let n = 0; n < 20; n++) {
        sink.at = 0
        codec.json(view, 0, sink)
      }
    })
  },
  /** A kilobyte of text with one character to escape. */
  escape: () => {
    const text = `${"a plain line of a guest's console, ".repeat(30).slice(0, 1023)}\x1b`
    best(1000, () => {
      for (let n = 0; n < 1000; n++) escapeText(text)
    })
  },
  /** A symbol's name and address. */
  kallsyms: () =>
    withKernel(({ symbols }) => {
      let count = 0
      for (const _ of symbols.entries()) count++
      best(count, () => {
        for (const _ of symbols.entries());
      })
    }),
  /** A virtual address of the kernel, by the page tables. */
  walk: () =>
    withKernel(({ space, symbol }) => {
      const page = Number(symbol("_stext") >> 12n)
      best(100_000, () => {
        for (let n = 0; n < 100_000; n++) {
          if (space.table.walk(page + (n & 0xff)) < 0) throw new Error("the kernel's text is not mapped")
        }
      })
    })
}
if (rows[name] === undefined) throw new Error(`micro.mjs times ${Object.keys(rows).join(", ")}`)
await rows[name]()
