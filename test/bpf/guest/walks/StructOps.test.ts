import { assert, describe, it } from "@effect/vitest"
import { Kind } from "../../../../src/btf/BtfType.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { MadeKernelObjects } from "../MadeKernelObjects.ts"
import type { MadeDeclarations } from "../MadeMaps.ts"

const KVALUE = 128n
const DATA = 64n
/** By the name of a struct that the kernel takes, the type of its wrapper, as `btf_vmlinux_value_type_id` has it. */
const wrappers = new Map<string, number>()

const types = ({ blob, int, long, struct, text }: MadeDeclarations): void => {
  const counter = struct("atomic_t", 4, [["counter", 0, int]])
  const count = struct("refcount_t", 4, [["refs", 0, counter]])
  const state = blob.enum32("bpf_struct_ops_state", [["INIT", 0], ["INUSE", 1]])
  const common = struct("bpf_struct_ops_common_value", 8, [["refcnt", 0, count], ["state", 4, state]])
  const value = struct("bpf_struct_ops_value", 64, [["common", 0, common], ["data", 64, text(0)]])
  struct("bpf_struct_ops_map", 192, [["btf", 72, long], ["uvalue", 80, long], ["kvalue", 128, value]])
  const call = blob.ref(Kind.PTR, blob.type(Kind.FUNC_PROTO, { third: int }))
  const ops = struct("made_ops", 24, [["run", 0, call], ["stop", 8, call], ["flags", 16, int]])
  wrappers.set("made_ops", struct("bpf_struct_ops_made_ops", 88, [["common", 0, common], ["data", 64, ops]]))
  const large = struct("large_ops", 70_000, [["bytes", 0, text(70_000)]])
  wrappers.set("large_ops", struct("bpf_struct_ops_large_ops", 70_064, [["common", 0, common], ["data", 64, large]]))
}

/** A struct in use by the kernel: `run` is a program, `stop` the kernel's own function. */
const structOps = (struct = "made_ops") => {
  const made = new MadeKernelObjects(types)
  const map = made.map({ type: "STRUCT_OPS", keySize: 4, valueSize: 88, maxEntries: 1, bytes: 216 })
  made.program("runner")
  made.set32(map + 32n, wrappers.get(struct)!)
  const given = made.object(88)
  made.set64(given + DATA, 1n)
  made.set64(map + 80n, given)
  made.set32(map + KVALUE, 3)
  made.set32(map + KVALUE + 4n, 1)
  made.set64(map + KVALUE + DATA, 0xffff_ffff_c000_0000n, made.symbol("_stext"))
  made.set32(map + KVALUE + DATA + 16n, 7)
  return { made, map, given }
}
const read = (made: MadeKernelObjects): unknown => {
  const { entries, problem } = made.read()
  return [entries, problem]
}

describe("StructOps", () => {
  it("gives the kernel's struct by its type, its functions as programs or symbols", () => {
    assert.deepStrictEqual(structOps().made.read(), {
      entries: [[0, { run: { id: 1, name: "runner", type: "tracing" }, stop: "_stext+0x0", flags: 7 }]],
      problem: null,
      details: { struct: "made_ops", state: "INUSE", refcnt: 3 }
    } as never)
  })

  it("gives addresses of functions where the programs' ids cannot be read, or are none", () => {
    const entry = [0, { run: "0xffffffffc0000000", stop: "_stext+0x0", flags: 7 }]
    const { given, made, map } = structOps()
    made.set64(given + DATA, 0xffff_ffff_ffffn)
    assert.deepStrictEqual(read(made), [[entry], null])
    made.set64(map + 80n, NOWHERE)
    assert.deepStrictEqual(read(made), [[entry], null])
  })

  it("gives the id alone of a program that is not in the list", () => {
    const { given, made } = structOps()
    made.set64(given + DATA, 99n)
    assert.deepStrictEqual(read(made), [[[0, { run: { id: 99 }, stop: "_stext+0x0", flags: 7 }]], null])
  })

  it("says that its module's types cannot be read", () => {
    const { made, map } = structOps()
    made.set64(map + 72n, NOWHERE)
    assert.deepStrictEqual(read(made), [[], "unreadable: its module's BTF: 0xffffdeadbeef0000 is not mapped"])
  })

  it("does not believe a struct that is longer than any, or a type that there is not", () => {
    assert.deepStrictEqual(read(structOps("large_ops").made), [[], "corrupted: a struct of 70000 bytes"])
    const { made, map } = structOps()
    made.set32(map + 32n, 99_999)
    const { entries, problem } = made.read()
    assert.deepStrictEqual(entries, [])
    assert.match(problem!, /^unsupported: /)
  })
})
