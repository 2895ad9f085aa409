import { assert, describe, it } from "@effect/vitest"
import { KernelObjects } from "../../../../src/bpf/guest/objects/KernelObjects.ts"
import { SpecialFields } from "../../../../src/bpf/guest/objects/SpecialFields.ts"
import { Kind } from "../../../../src/btf/BtfType.ts"
import { toJson } from "../../../../src/btf/render/RenderedValue.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { u32 } from "../MadeHash.ts"
import { MadeKernelObjects } from "../MadeKernelObjects.ts"
import { hex, type MadeDeclarations } from "../MadeMaps.ts"

/** The types of a map's value, and of what the kernel keeps for it; kernel/bpf/helpers.c, smaller than in v6.12. */
const types = ({ blob, byte, int, long, struct, text }: MadeDeclarations): void => {
  const callback = struct("bpf_async_cb", 16, [["prog", 0, long], ["callback_fn", 8, long]])
  const node = struct("timerqueue_node", 8, [["expires", 0, long]])
  const timer = struct("hrtimer", 24, [["node", 0, node], ["base", 8, long], ["state", 16, byte]])
  struct("bpf_hrtimer", 40, [["cb", 0, callback], ["timer", 16, timer]])
  struct("hrtimer_clock_base", 4, [["clockid", 0, int]])
  const own = struct("bpf_timer", 16, [["opaque", 0, text(16)]])
  const task = struct("task_struct", 32, [["pid", 0, int], ["tgid", 4, int], ["comm", 8, text(16)]])
  const kept = blob.ref(Kind.PTR, blob.ref(Kind.TYPE_TAG, task, "kptr"))
  struct("value", 24, [["timer", 0, own], ["task", 16, kept]])
}

/** A value whose timer is armed, and that keeps a task. */
const value = () => {
  const made = new MadeKernelObjects(types)
  const clock = made.object(4)
  made.set32(clock, 1)
  const timer = made.object(40)
  made.set64(timer, made.program("ticker"), made.symbol("_stext"), 5000n, clock, 1n)
  const task = made.object(32)
  made.put(task, Buffer.concat([u32(7), u32(6), Buffer.from("kept")]))
  const bytes = new DataView(new ArrayBuffer(24))
  bytes.setBigUint64(0, timer, true)
  bytes.setBigUint64(16, task, true)
  const read = () => {
    const { kernel } = made
    const objects = new KernelObjects(kernel, [{ id: 1, name: "ticker", type: "tracing" }], [])
    const [id] = kernel.btf.idsByName("value")
    return toJson(new SpecialFields(kernel, objects).compile(kernel.btf, id).tree(bytes, 0))
  }
  return { made, timer, task, clock, bytes, read }
}
const program = { callback: "_stext+0x0", program: { id: 1, name: "ticker", type: "tracing" } }
const armed = { armed: true, expires: 5000, clock: "CLOCK_MONOTONIC", ...program }
const kept = (task: bigint) => ({
  address: hex(task),
  type: "task_struct",
  value: { pid: 7, tgid: 6, comm: "kept" }
})
const $unreadable = "0xffffdeadbeef0000 is not mapped"

describe("SpecialFields", () => {
  it("shows a timer and a kept task as what they are; null ones too", () => {
    const { bytes, made, read, task, timer } = value()
    assert.deepStrictEqual(read(), { timer: armed, task: kept(task) })
    made.set64(timer + 32n, 0n)
    assert.deepStrictEqual(read(), { timer: { armed: false, clock: "CLOCK_MONOTONIC", ...program }, task: kept(task) })
    bytes.setBigUint64(0, 0n, true)
    bytes.setBigUint64(16, 0n, true)
    assert.deepStrictEqual(read(), { timer: { armed: false }, task: "0x0" })
  })

  it("says in its place what cannot be read, and shows the rest", () => {
    const { bytes, made, read, task, timer } = value()
    made.set64(timer + 24n, NOWHERE)
    made.set64(timer, NOWHERE)
    assert.deepStrictEqual(read(), {
      timer: { ...armed, clock: { $unreadable }, program: { $unreadable } },
      task: kept(task)
    })
    bytes.setBigUint64(0, NOWHERE, true)
    assert.deepStrictEqual(read(), { timer: { $unreadable }, task: kept(task) })
    bytes.setBigUint64(16, NOWHERE, true)
    assert.deepStrictEqual(read(), {
      timer: { $unreadable },
      task: { address: hex(NOWHERE), type: "task_struct", value: { $unreadable } }
    })
  })

  it("says that the memory's end cuts a timer", () => {
    const { bytes, made, read, task } = value()
    bytes.setBigUint64(0, made.atTheEnd(32), true)
    assert.deepStrictEqual(read(), {
      timer: { $unreadable: `${hex(made.atTheEnd(0))} is not mapped` },
      task: kept(task)
    })
  })
})
