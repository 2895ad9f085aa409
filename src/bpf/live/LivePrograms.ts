import * as Either from "effect/Either"
import { layout } from "../../btf/Layout.ts"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { cString } from "../../core/CString.ts"
import { errnoName } from "../../core/Errors.ts"
import { combine, type Reason, toReason, unsupported, within } from "../../core/Reason.ts"
import { typeNames } from "../MapType.ts"
import { countOf, NAME_BYTES, Program, type ProgramTarget, targetNamed, wholeName } from "../Program.ts"
import { INFO_BYTES, ProgramInfoAt } from "./calls/BpfAbi.ts"
import type { BpfCalls } from "./calls/BpfCalls.ts"
import { discover, type Discovered } from "./calls/Discovery.ts"
import type { LiveBtf } from "./calls/LiveBtf.ts"

/** Bytes of a `struct bpf_func_info`: an instruction's offset, a type id. */
const FUNCTION_BYTES = 8

/** Of a running kernel's own BTF, so that a member which it has not is told from a zero; newer than v5.0's are optional. */
const infoLayout = memoizeByBtf((btf) =>
  layout(btf, "bpf_prog_info", [
    "tag",
    "jited_prog_len",
    "xlated_prog_len",
    "load_time",
    "created_by_uid",
    "nr_map_ids",
    "map_ids",
    "nr_func_info",
    "func_info_rec_size",
    "func_info"
  ], [["run_time_ns", "run_cnt"], "recursion_misses", "verified_insns", ["attach_btf_obj_id", "attach_btf_id"]])
)

export interface LivePrograms extends Discovered<Program> {
  /** The ids of those that are for a function of another program, not of the kernel. */
  readonly extenders: ReadonlySet<number>
}

/**
 * Every program of the running kernel. bpf(2) does not tell a program's expected attach type: `attachType` is null, and a
 * struct_ops program's target is the struct, not its member.
 * @see include/uapi/linux/bpf.h `struct bpf_prog_info`, v6.12
 */
export const livePrograms = (calls: BpfCalls, btf: LiveBtf): LivePrograms => {
  const found = infoLayout(btf.kernel)
  const extenders = new Set<number>()
  if (Either.isLeft(found)) {
    return { items: [], problems: [within("programs", toReason(found.left))], failed: 0, extenders }
  }
  const { at } = found.right
  const typeName = typeNames(btf.kernel, "bpf_prog_type")
  const info = calls.buffer(Math.max(INFO_BYTES.program, found.right.size))
  const { view } = info
  const u32 = (field: number | undefined): number => field === undefined ? 0 : view.getUint32(field, true)
  const count = (field: number | undefined) => field === undefined ? null : countOf(view.getBigUint64(field, true))
  const programs = discover(calls, "program", (fd) => {
    info.bytes.fill(0)
    const sized = calls.info(fd, info)
    if (sized < 0) return `BPF_OBJ_GET_INFO_BY_FD: ${errnoName(-sized)}`
    const mapCount = u32(at.nr_map_ids)
    const hasFunctions = u32(at.nr_func_info) > 0
    const maps = calls.buffer(mapCount * 4)
    const functions = calls.buffer(FUNCTION_BYTES)
    // Arrays are filled where there is room: for the maps, and for the first function.
    info.bytes.fill(0)
    view.setUint32(at.nr_map_ids, mapCount, true)
    view.setBigUint64(at.map_ids, mapCount === 0 ? 0n : maps.address, true)
    view.setUint32(at.nr_func_info, hasFunctions ? 1 : 0, true)
    view.setUint32(at.func_info_rec_size, hasFunctions ? FUNCTION_BYTES : 0, true)
    view.setBigUint64(at.func_info, hasFunctions ? functions.address : 0n, true)
    const filled = calls.info(fd, info)
    if (filled < 0) return `BPF_OBJ_GET_INFO_BY_FD: ${errnoName(-filled)}`
    const problems: Array<Reason> = []
    const noted = <A>(what: string, result: Either.Either<A, Reason>): A | null => {
      if (Either.isRight(result)) return result.right
      problems.push(within(what, result.left))
      return null
    }
    const type = typeName(u32(ProgramInfoAt.type))
    const btfId = u32(ProgramInfoAt.btf_id)
    const types = btfId === 0 ? null : noted("its BTF", btf.byId(btfId))
    const name = cString(info.bytes, ProgramInfoAt.name, NAME_BYTES)
    const mainFunction = () => types === null || !hasFunctions ? "" : types.nameOf(functions.view.getUint32(4, true))
    const id = u32(ProgramInfoAt.id)
    const object = u32(at.attach_btf_obj_id)
    const targetId = u32(at.attach_btf_id)
    if (targetId !== 0 && (object === 0 || btf.ownerOf(object) === null)) extenders.add(id)
    return {
      item: new Program({
        id,
        name: wholeName(name, mainFunction),
        type,
        attachType: null,
        target: targetId === 0 ? null : noted("what it attaches to", targetOf(btf, type, object, targetId)),
        tag: Buffer.from(view.buffer, view.byteOffset + at.tag, 8).toString("hex"),
        uid: u32(at.created_by_uid),
        loadedAt: count(at.load_time),
        instructions: u32(at.xlated_prog_len) / 8,
        verifiedInstructions: at.verified_insns === undefined ? null : u32(at.verified_insns),
        jitedBytes: u32(at.jited_prog_len),
        runs: count(at.run_cnt),
        runNanos: count(at.run_time_ns),
        misses: count(at.recursion_misses),
        mapIds: Array.from(
          { length: Math.min(mapCount, u32(at.nr_map_ids)) },
          (_, i) => maps.view.getUint32(i * 4, true)
        ),
        btfId: btfId === 0 ? null : btfId,
        problem: combine(problems)
      }, true),
      keep: false
    }
  })
  return { ...programs, extenders }
}

/**
 * The target that a type of a BTF object stands for. A program attached to another one's function has no object: only
 * its link knows (kernel/bpf/syscall.c `bpf_tracing_prog_attach`, v6.12).
 */
const targetOf = (btf: LiveBtf, type: string, object: number, typeId: number): Either.Either<ProgramTarget, Reason> =>
  object === 0
    ? Either.left(unsupported("a function of another program, which its link tells"))
    : Either.map(btf.byId(object), (types) => {
      const owner = btf.ownerOf(object)
      return {
        ...targetNamed(types, typeId, type, undefined),
        module: owner === "vmlinux" ? null : owner,
        program: null
      }
    })
