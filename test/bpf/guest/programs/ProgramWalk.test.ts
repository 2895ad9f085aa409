import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { listPrograms } from "../../../../src/bpf/guest/programs/ProgramWalk.ts"
import { formatReason } from "../../../../src/core/Reason.ts"
import { GuestKernel } from "../../../../src/memory/GuestKernel.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { hex, MadeMaps } from "../MadeMaps.ts"

/** A kernel with a program: `struct bpf_prog` and `struct bpf_prog_aux` as `MadeMaps` lays them out. */
const made = () => {
  const maps = new MadeMaps()
  const program = maps.object(56)
  const aux = maps.object(112)
  maps.set32(program, 26)
  maps.set64(program + 8n, aux)
  maps.set32(program + 16n, 11)
  maps.put(program + 24n, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
  maps.set32(aux, 1)
  maps.put(aux + 16n, Buffer.from("made"))
  maps.list("prog_idr", [program])
  const list = () => {
    const { items, problems } = Effect.runSync(Effect.provideService(listPrograms, GuestKernel, maps.kernel))
    return { items, problems: problems.map(formatReason) }
  }
  return { maps, program, aux, list }
}

describe("listPrograms", () => {
  it("reads what the kernel says of a program", () => {
    const { aux, list, maps } = made()
    const pointers = maps.object(16)
    const owned = [3, 4].map(() => maps.map({ type: "ARRAY", keySize: 4, valueSize: 4, maxEntries: 1, bytes: 96 }))
    maps.set64(pointers, ...owned)
    maps.set32(aux + 4n, 2)
    maps.set64(aux + 8n, pointers)
    const { items: [program], problems } = list()
    assert.deepStrictEqual(problems, [])
    assert.deepInclude(program, {
      id: 1,
      name: "made",
      type: "tracing",
      tag: "0102030405060708",
      instructions: 11,
      mapIds: [1, 2],
      problem: null
    })
  })

  it("reads a program once, however many places of the list lead to it", () => {
    const { list, maps, program } = made()
    maps.list("prog_idr", Array.from({ length: 63 }, () => program))
    const { items, problems } = list()
    assert.deepStrictEqual(items.map(({ id }) => id), [1])
    assert.strictEqual(problems.length, 62)
    assert.strictEqual(problems[0], `corrupted: program 2: the structure at ${hex(program)} says it is program 1`)
  })

  it("does not believe counts that no program has", () => {
    const { aux, list, maps } = made()
    maps.set32(aux + 4n, 65_536)
    maps.set64(aux + 8n, aux)
    maps.set32(aux + 32n, 65_536)
    maps.set64(aux + 40n, aux)
    const { items: [{ problem }] } = list()
    assert.strictEqual(problem?.kind, "corrupted")
    assert.match(problem?.text ?? "", /65536 functions.*65536 maps/)
  })

  it("says which program cannot be read, and shows the others", () => {
    const { list, maps, program } = made()
    maps.list("prog_idr", [program, NOWHERE])
    const { items, problems } = list()
    assert.strictEqual(items.length, 1)
    assert.deepStrictEqual(problems, ["unreadable: program 2: 0xffffdeadbeef0000 is not mapped"])
  })
})
