import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import { enumNames } from "../../../btf/EnumNames.ts"
import { layout } from "../../../btf/Layout.ts"
import { bpfMapOffsets } from "../../../btf/offsets/bpf/BpfMap.ts"
import { bpfProgramStatsOffsets } from "../../../btf/offsets/bpf/BpfProgram.ts"
import { hex, kvaFrom } from "../../../core/Address.ts"
import { absent, combine, corrupted, type Reason, toReason, unsupported, within } from "../../../core/Reason.ts"
import { WalkProblems } from "../../../core/WalkProblems.ts"
import { GuestKernel, type GuestKernelService } from "../../../memory/GuestKernel.ts"
import { StructReader } from "../../../memory/structs/StructReader.ts"
import { idrLayout, walkIdr } from "../../../memory/structs/Xarray.ts"
import { BpfUnreadable, type Listing } from "../../MapAccessor.ts"
import { Count, countOf, Program, type ProgramTarget, targetNamed, wholeName } from "../../Program.ts"
import { type BtfObject, GuestBtf } from "./GuestBtf.ts"

/**
 * Every program of a kernel that stands still, in the order of ids.
 *
 * @since 0.1.0
 * @category reading
 */
export const listPrograms: Effect.Effect<Listing<Program>, BpfUnreadable, GuestKernel> = Effect.flatMap(
  GuestKernel,
  (kernel) => Either.map(ProgramWalk.make(kernel), (walk) => walk.list())
)

/** include/linux/bpf.h `struct bpf_prog`, `struct bpf_prog_aux`; v6.1 to v6.18 */
const programLayouts = (btf: Btf) =>
  Either.gen(function*() {
    const shared = yield* bpfMapOffsets.resolve(btf)
    return {
      program: yield* layout(btf, "bpf_prog", ["type", "aux", "len", "jited_len", "tag"], ["expected_attach_type"]),
      aux: yield* layout(btf, "bpf_prog_aux", ["id", "name"], [
        "verified_insns",
        "load_time",
        "user",
        ["used_maps", "used_map_cnt"],
        ["func", "func_cnt"],
        "btf",
        ["func_info", "func_info_cnt"],
        "attach_btf_id",
        "attach_btf",
        "attach_func_name",
        "dst_prog"
      ]),
      btf: shared.btf,
      map: shared.map,
      // include/linux/sched/user.h `struct user_struct`, v6.12
      user: Either.getOrUndefined(layout(btf, "user_struct", ["uid.val"])),
      stats: Either.getOrUndefined(bpfProgramStatsOffsets.resolve(btf))
    }
  })

type ProgramLayouts = Either.Either.Right<ReturnType<typeof programLayouts>>

/** Why the programs or links of a kernel cannot be found. */
const noBpf = (what: string, why: string): BpfUnreadable =>
  new BpfUnreadable({
    what,
    why,
    hint: "is this Linux 6.1 or newer with CONFIG_BPF_SYSCALL and CONFIG_KALLSYMS_ALL?"
  })

/**
 * The most maps and functions that one program is believed to have. The verifier allows 64 maps and 256 functions
 * (include/linux/bpf_verifier.h `MAX_USED_MAPS`, `BPF_MAX_SUBPROGS`, v6.12); BPF_PROG_BIND_MAP adds maps.
 */
const PROGRAM_LIMIT = 1024

/** The counters of `struct bpf_prog_stats`: runs, nanoseconds, runs that recursion prevented. */
const COUNTS = ["cnt", "nsecs", "misses"] as const

/** Reads programs, those of `prog_idr` and those that others point at. Not for hot loops. */
export class ProgramWalk {
  private readonly typeNames: ReadonlyMap<number, string>
  private readonly attachNames: ReadonlyMap<number, string>
  private readonly reader: StructReader

  static readonly make = (kernel: GuestKernelService): Either.Either<ProgramWalk, BpfUnreadable> =>
    Either.gen(function*() {
      const layouts = yield* programLayouts(kernel.btf)
      return new ProgramWalk(kernel, layouts, new GuestBtf(kernel, layouts.btf))
    }).pipe(Either.mapLeft(({ message }) => noBpf(`BPF programs of kernel ${kernel.release}`, message)))

  private constructor(
    private readonly kernel: GuestKernelService,
    private readonly layouts: ProgramLayouts,
    readonly types: GuestBtf
  ) {
    this.reader = new StructReader(kernel.space)
    this.typeNames = enumNames(kernel.btf, "bpf_prog_type", "BPF_PROG_TYPE_")
    this.attachNames = enumNames(kernel.btf, "bpf_attach_type", "BPF_")
  }

  list(): Listing<Program> {
    const { kernel } = this
    const items: Array<Program> = []
    const broken = new WalkProblems()
    const address = kernel.symbol("prog_idr")
    const shape = idrLayout(kernel.btf)
    if (address === undefined) return { items, problems: [absent("the kernel's symbols lack prog_idr")] }
    if (Either.isLeft(shape)) return { items, problems: [toReason(shape.left)] }
    const problems = walkIdr(kernel.space, shape.right, address, (id, page, offset) => {
      const at = kvaFrom(page, offset)
      // The id first: a hostile list leads to one large program from each of its places.
      const found = this.idOf(at)
      if (found === undefined) return broken.add(within(`program ${id}`, kernel.space.faultReason))
      if (found !== id) {
        return broken.add(corrupted(`program ${id}: the structure at ${hex(at)} says it is program ${found}`))
      }
      const program = this.read(at)
      if (Either.isLeft(program)) broken.add(within(`program ${id}`, program.left))
      else items.push(program.right)
    })
    return { items, problems: [...problems.map((problem) => within("prog_idr", problem)), ...broken.list] }
  }

  /** `enum bpf_attach_type` in bpftool's spelling. */
  attachName(type: number): string {
    return this.attachNames.get(type) ?? `attach type ${type}`
  }

  /** The id of the program at an address; undefined where it cannot be read. */
  idOf(address: bigint): number | undefined {
    const { kernel: { space }, layouts: { aux, program } } = this
    const at = space.u64(address + BigInt(program.at.aux))
    const id = at === undefined ? -1 : space.u32(at + BigInt(aux.at.id))
    return id < 0 ? undefined : id
  }

  /** The BTF of the program at an address. */
  typesOf(address: bigint): Either.Either<BtfObject, Reason> {
    const { kernel: { space }, layouts: { aux, program } } = this
    if (aux.at.btf === undefined) return Either.left(unsupported("this kernel's programs have no BTF"))
    const at = space.u64(address + BigInt(program.at.aux))
    const btf = at === undefined ? undefined : space.u64(at + BigInt(aux.at.btf))
    return btf === undefined ? Either.left(space.faultReason) : this.types.at(btf)
  }

  /** The program at an address, or why it cannot be read. */
  read(address: bigint): Either.Either<Program, Reason> {
    const { aux: auxLayout, program } = this.layouts
    const mainRead = this.reader.struct(program, address)
    if (Either.isLeft(mainRead)) return Either.left(mainRead.left)
    const main = mainRead.right
    const auxRead = this.reader.struct(auxLayout, main.u64("aux"))
    if (Either.isLeft(auxRead)) return Either.left(auxRead.left)
    const aux = auxRead.right
    const problems: Array<Reason> = []
    const noted = <A>(what: string, found: Either.Either<A, Reason>): A | null => {
      if (Either.isRight(found)) return found.right
      problems.push(within(what, found.left))
      return null
    }
    const type = main.uint("type")
    const tag = main.bytes("tag")
    const typeName = this.typeNames.get(type) ?? `type ${type}`
    const attachType = main.uint("expected_attach_type") ?? 0
    const btf = aux.u64("btf") ?? 0n
    const types = btf === 0n ? null : noted("its BTF", this.types.at(btf))
    const stats = noted("its statistics", this.statsAt(address))
    const user = aux.u64("user")
    const loadTime = aux.u64("load_time")
    const usedMaps = aux.u64("used_maps")
    const attachBtfId = aux.uint("attach_btf_id") ?? 0
    return Either.right(
      new Program({
        id: aux.uint("id"),
        name: wholeName(
          aux.text("name"),
          () => this.mainFunction(types, aux.u64("func_info") ?? 0n, aux.uint("func_info_cnt") ?? 0)
        ),
        type: typeName,
        attachType: attachType === 0 || typeName === "struct_ops" ? null : this.attachName(attachType),
        target: attachBtfId === 0 ? null : noted(
          "what it attaches to",
          this.targetOf(typeName, attachType, {
            typeId: attachBtfId,
            btf: aux.u64("attach_btf"),
            program: aux.u64("dst_prog") ?? 0n,
            name: aux.u64("attach_func_name") ?? 0n
          })
        ),
        tag: Buffer.from(tag.buffer, tag.byteOffset, tag.byteLength).toString("hex"),
        uid: user === undefined ? null : noted("its user", this.uidAt(user)),
        loadedAt: loadTime === undefined ? null : countOf(loadTime),
        instructions: main.uint("len"),
        verifiedInstructions: aux.uint("verified_insns") ?? null,
        jitedBytes: noted(
          "its machine code",
          this.jitedBytes(main.uint("jited_len"), aux.u64("func") ?? 0n, aux.uint("func_cnt") ?? 0)
        ),
        runs: stats?.runs ?? null,
        runNanos: stats?.nanos ?? null,
        misses: stats?.misses ?? null,
        mapIds: usedMaps === undefined ? null : noted("its maps", this.mapIds(usedMaps, aux.uint("used_map_cnt") ?? 0)),
        btfId: types?.id ?? null,
        problem: combine(problems)
      }, true)
    )
  }

  /** The name of a program's main function; "" where it has no BTF. */
  private mainFunction(types: BtfObject | null, functions: bigint, count: number): string {
    if (types === null || count === 0) return ""
    const typeId = this.kernel.space.u32(functions + 4n)
    return typeId < 0 ? "" : types.btf.nameOf(typeId)
  }

  /** @see kernel/bpf/verifier.c `bpf_check_attach_target`, v6.12 */
  private targetOf(
    type: string,
    attachType: number,
    of: { readonly typeId: number; readonly btf: bigint | undefined; readonly program: bigint; readonly name: bigint }
  ): Either.Either<ProgramTarget, Reason> {
    const { kernel: { btf: own, space } } = this
    // Before v5.11 the kernel's own types were the only ones.
    if (of.program === 0n && of.btf === undefined) {
      return Either.right({ ...targetNamed(own, of.typeId, type, attachType), module: null, program: null })
    }
    if (of.program !== 0n || of.btf === undefined || of.btf === 0n) {
      // Once it is attached, only its link knows the program; the function's name stays.
      const program = of.program === 0n ? null : this.idOf(of.program)
      const name = of.program === 0n
        ? undefined
        : Either.getOrUndefined(Either.map(this.typesOf(of.program), ({ btf }) => btf.nameOf(of.typeId)))
      const function_ = name ??
        (of.name === 0n ? undefined : Either.getOrUndefined(this.reader.text(of.name)))
      return program === undefined || function_ === undefined
        ? Either.left(space.faultReason)
        : Either.right({ kind: "function", name: function_, module: null, program })
    }
    return Either.map(this.types.at(of.btf), ({ btf, module }) => ({
      ...targetNamed(btf, of.typeId, type, attachType),
      module,
      program: null
    }))
  }

  private uidAt(user: bigint): Either.Either<number | null, Reason> {
    const { kernel: { space }, layouts } = this
    if (layouts.user === undefined || user === 0n) return Either.right(null)
    const uid = space.u32(user + BigInt(layouts.user.at["uid.val"]))
    return uid < 0 ? Either.left(space.faultReason) : Either.right(uid)
  }

  /** A program of several functions has its machine code in theirs; kernel/bpf/syscall.c, v6.12. */
  private jitedBytes(main: number, functions: bigint, count: number): Either.Either<number, Reason> {
    const { kernel: { space }, layouts: { program } } = this
    if (count === 0 || functions === 0n) return Either.right(main)
    if (count > PROGRAM_LIMIT) return Either.left(corrupted(`${count} functions`))
    let sum = 0
    for (let index = 0; index < count; index++) {
      const at = space.u64(functions + BigInt(index) * 8n)
      const length = at === undefined ? -1 : space.u32(at + BigInt(program.at.jited_len))
      if (length < 0) return Either.left(space.faultReason)
      sum += length
    }
    return Either.right(sum)
  }

  private mapIds(maps: bigint, count: number): Either.Either<ReadonlyArray<number>, Reason> {
    const { kernel: { space }, layouts: { map } } = this
    if (count > PROGRAM_LIMIT) return Either.left(corrupted(`${count} maps`))
    const ids: Array<number> = []
    for (let index = 0; index < count; index++) {
      const at = space.u64(maps + BigInt(index) * 8n)
      const id = at === undefined ? -1 : space.u32(at + BigInt(map.at.id))
      if (id < 0) return Either.left(space.faultReason)
      ids.push(id)
    }
    return Either.right(ids)
  }

  /** Summed over the possible CPUs; null where the kernel keeps none. */
  private statsAt(
    program: bigint
  ): Either.Either<{ readonly runs: Count; readonly nanos: Count; readonly misses: Count | null } | null, Reason> {
    const { kernel, layouts: { stats: layouts } } = this
    const { space } = kernel
    if (layouts === undefined) return Either.right(null)
    const pointer = space.u64(program + BigInt(layouts.program.at.stats))
    if (pointer === undefined) return Either.left(space.faultReason)
    if (pointer === 0n) return Either.right(null)
    if (kernel.perCpuProblem !== undefined) return Either.left(kernel.perCpuProblem)
    const sums = [0n, 0n, 0n]
    for (let cpu = 0; cpu < kernel.perCpuOffsets.length; cpu++) {
      if (kernel.perCpuOffsets[cpu] === undefined) continue
      const copy = kernel.perCpu(pointer, cpu)
      const read = copy === undefined ? Either.left(space.faultReason) : this.reader.struct(layouts.stats, copy)
      if (Either.isLeft(read)) return Either.left(within(`CPU ${cpu}`, read.left))
      for (const [index, field] of COUNTS.entries()) sums[index] += read.right.u64(field) ?? 0n
    }
    const [runs, nanos, missed] = sums.map((sum) => countOf(BigInt.asUintN(64, sum)))
    return Either.right({ runs, nanos, misses: layouts.stats.at.misses === undefined ? null : missed })
  }
}
