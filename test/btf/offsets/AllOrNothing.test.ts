import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { Btf } from "../../../src/btf/Btf.ts"
import type { GroupParts } from "../../../src/btf/OffsetGroup.ts"
import { offsetGroups } from "../../../src/btf/offsets/offsetGroups.ts"
import { fromBuilt, fromImage, NOT_BUILT } from "./kernels.ts"

/** The fields that a kernel may lack and the group still be there; each in the struct that it is a member of. */
const OPTIONAL = new Set([
  "sched_domain.newidle_call",
  "sched_domain.newidle_success",
  "sched_domain.newidle_ratio",
  "tick_sched.iowait_sleeptime",
  "bpf_map.btf_vmlinux_value_type_id",
  "btf.base_btf",
  "btf.kernel_btf",
  "btf.name",
  "bpf_ringbuf.pending_pos",
  "bpf_prog_aux.verified_insns",
  "bpf_prog_aux.used_maps",
  "bpf_prog_aux.used_map_cnt",
  "bpf_prog_stats.misses",
  "scx_rq.kick_sync",
  "sched_ext_entity.ops_qseq"
])

/** Bytes after the 12 of `struct btf_type` by kind: once, and for each of `vlen` (include/uapi/linux/btf.h, v6.12). */
const FIXED = [0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0]
const EACH = [0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12]

/** Where each type's record begins, by id. */
const recordsOf = (view: DataView): ReadonlyArray<number> => {
  const records = [0]
  const start = view.getUint32(4, true) + view.getUint32(8, true)
  for (let at = start; at < start + view.getUint32(12, true);) {
    records.push(at)
    const info = view.getUint32(at + 4, true)
    at += 12 + FIXED[info >>> 24 & 31] + EACH[info >>> 24 & 31] * (info & 0xffff)
  }
  return records
}

/** The struct, maybe an anonymous one inside, and the index in it of the member of this name. */
const ownerOf = (btf: Btf, id: number, name: string): readonly [number, number] | undefined => {
  const type = btf.type(btf.peel(id))
  if (type?.kind !== "STRUCT" && type?.kind !== "UNION") return undefined
  const index = type.members.findIndex((member) => member.name === name)
  if (index >= 0) return [type.id, index]
  for (const member of type.members) {
    const found = member.name === "" ? ownerOf(btf, member.type, name) : undefined
    if (found !== undefined) return found
  }
  return undefined
}

const typeIds = (parts: GroupParts): ReadonlyArray<number> =>
  Object.values(parts).flatMap((part) => part === undefined || "enum" in part ? [] : part.typeId)

/** Rename one member after the other in a real kernel's BTF. */
const renameEach = (bytes: Uint8Array): void => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const records = recordsOf(view)
  const parse = () => Either.getOrThrow(Btf.parse(bytes, { subject: "vmlinux" }))
  const whole = parse()
  let renamed = 0
  for (const group of offsetGroups) {
    const found = group.resolve(whole)
    if (Either.isLeft(found)) continue
    for (const part of Object.values(found.right)) {
      if (part === undefined || "enum" in part) continue
      for (const field of part.fields.filter((field) => part.at[field] !== undefined && !field.includes("."))) {
        const owner = ownerOf(whole, part.typeId, part.called[field] ?? field)
        assert(owner !== undefined)
        const at = records[owner[0]] + 12 + owner[1] * 12
        const name = view.getUint32(at, true)
        view.setUint32(at, name + 1, true) // its own name without the first letter
        const now = group.resolve(parse())
        view.setUint32(at, name, true)
        renamed++
        const what = `${group.name} without ${part.struct}.${field}`
        if (!OPTIONAL.has(`${part.struct}.${field}`) && field !== "lb_imbalance") {
          // Another struct of that name may serve in its place.
          if (Either.isRight(now)) assert.notDeepEqual(typeIds(now.right), typeIds(found.right), what)
          else assert.deepStrictEqual([now.left.struct, now.left.member], [part.struct, field], what)
          continue
        }
        if (field === "lb_imbalance") {
          assert.strictEqual(
            Either.merge(Either.map(Either.flip(now), (lack) => lack.member)),
            "lb_imbalance_load",
            what
          )
          continue
        }
        assert(Either.isRight(now), what)
        const left = Object.values(now.right).find((other) =>
          other !== undefined && "typeId" in other && other.typeId === part.typeId
        )
        assert(left !== undefined && "at" in left, what)
        const gone = part.fields.filter((other) => part.at[other] !== undefined && left.at[other] === undefined)
        assert.deepStrictEqual(
          gone,
          field.startsWith("newidle_") ? ["newidle_call", "newidle_success", "newidle_ratio"] : [field],
          what
        )
      }
    }
  }
  assert.isAbove(renamed, 90)
}

describe("a group whose member has another name is absent and says so, or lacks an optional field, in the BTF of", () => {
  it.effect("Debian's 6.12", () => Effect.map(fromImage("6.12-cloud"), renameEach))

  const scx = fromBuilt
  if (scx === undefined) it.skip(`a sched_ext 6.12: ${NOT_BUILT}`)
  else it.effect("a sched_ext 6.12", () => Effect.map(scx, renameEach))
})
