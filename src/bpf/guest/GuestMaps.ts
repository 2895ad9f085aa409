import * as Either from "effect/Either"
import type { Btf } from "../../btf/Btf.ts"
import { layout } from "../../btf/Layout.ts"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { hex, kvaFrom } from "../../core/Address.ts"
import { cString } from "../../core/CString.ts"
import { combine, corrupted, type Reason, toReason, unsupported, within } from "../../core/Reason.ts"
import { WalkProblems } from "../../core/WalkProblems.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { type KernelSpace, pointerOffset, pointerPage } from "../../memory/KernelSpace.ts"
import { PerCpuCopies } from "../../memory/structs/PerCpuCopies.ts"
import { OBJECT_LIMIT } from "../../memory/structs/StructReader.ts"
import { type IdrLayout, idrLayout, walkIdr } from "../../memory/structs/Xarray.ts"
import { BpfUnreadable, type Listing } from "../MapAccessor.ts"
import { MapInfo } from "../MapInfo.ts"
import type { MapReader } from "../MapReader.ts"
import { isPerCpu, typeNames } from "../MapType.ts"
import { NOT_LISTED, readerOf, unreadableMap } from "../OpenMap.ts"
import { NAME_BYTES, wholeName } from "../Program.ts"
import type { ProgramInfo } from "../Report.ts"
import { mapOpeners } from "./MapOpeners.ts"
import { sizeProblem } from "./MapSizes.ts"
import { KernelObjects } from "./objects/KernelObjects.ts"
import { SpecialFields } from "./objects/SpecialFields.ts"
import { GuestBtf } from "./programs/GuestBtf.ts"
import { type BpfLayouts, bpfLayouts } from "./walks/BpfLayouts.ts"
import type { GuestMap, OpenedGuestMap } from "./walks/GuestMap.ts"

/** A map of the list: what its `struct bpf_map` says, and where that is. */
export type ListedMap = Pick<GuestMap, "info" | "type" | "kernelTypeId" | "page" | "offset">

const mapLayouts = memoizeByBtf(bpfLayouts)
const listLayout = memoizeByBtf(idrLayout)
/** include/linux/bpf.h `struct bpf_prog_aux`, v6.12 */
const functionLayout = memoizeByBtf((btf) => layout(btf, "bpf_prog_aux", ["btf", "func_info", "func_info_cnt"]))

/**
 * The BPF maps and programs in a guest's memory. Plain code; `GuestMapAccessor` gives it to Effect programs. Lists are
 * read once and kept: the memory stands still.
 */
export class GuestMaps {
  readonly maps: Listing<ListedMap>
  readonly programs: Listing<ProgramInfo>
  private readonly copies: PerCpuCopies
  private readonly secondCursor: KernelSpace
  private readonly objects: KernelObjects
  private readonly special: SpecialFields
  private readonly btfObjects: GuestBtf

  static readonly make = (kernel: GuestKernelService): Either.Either<GuestMaps, BpfUnreadable> =>
    Either.gen(function*() {
      const needsBtf = (error: { readonly message: string }) =>
        new BpfUnreadable({
          what: `BPF structures of kernel ${kernel.release}`,
          why: error.message,
          hint: "its BTF must describe them: is this Linux 5.4 or newer with CONFIG_BPF_SYSCALL?"
        })
      const layouts = yield* Either.mapLeft(mapLayouts(kernel.btf), needsBtf)
      const idr = yield* Either.mapLeft(listLayout(kernel.btf), needsBtf)
      const at = (symbol: string): Either.Either<bigint, BpfUnreadable> =>
        Either.fromNullable(kernel.symbol(symbol), () =>
          new BpfUnreadable({
            what: symbol,
            why: `the symbols of kernel ${kernel.release} lack it`,
            hint: "build the kernel with CONFIG_BPF_SYSCALL=y and CONFIG_KALLSYMS_ALL=y, or give its vmlinux"
          }))
      return new GuestMaps(kernel, layouts, idr, yield* at("map_idr"), yield* at("prog_idr"))
    })

  private constructor(
    private readonly kernel: GuestKernelService,
    private readonly layouts: BpfLayouts,
    idr: IdrLayout,
    mapIdr: bigint,
    progIdr: bigint
  ) {
    this.btfObjects = new GuestBtf(kernel, layouts.btf)
    this.copies = new PerCpuCopies(kernel.space, kernel.perCpuOffsets)
    this.maps = this.listMaps(idr, mapIdr)
    this.programs = this.listPrograms(idr, progIdr)
    this.secondCursor = kernel.space.fork()
    this.objects = new KernelObjects(kernel, this.programs.items, this.maps.items.map(({ info }) => info))
    this.special = new SpecialFields(kernel, this.objects)
  }

  private listMaps(idr: IdrLayout, address: bigint): Listing<ListedMap> {
    const { kernel: { btf, space }, layouts: { map: { at, size } } } = this
    const typeName = typeNames(btf, "bpf_map_type")
    const items: Array<ListedMap> = []
    const broken = new WalkProblems()
    const problems = walkIdr(space, idr, address, (id, page, offset) => {
      if (!space.window(page, offset, Math.min(size, OBJECT_LIMIT))) {
        broken.add(within(`map ${id}: its bpf_map`, space.faultReason))
        return
      }
      const view = space.view
      const start = space.at
      const u32 = (field: number): number => view.getUint32(start + field, true)
      if (u32(at.id) !== id) {
        broken.add(
          corrupted(`map ${id}: the structure at ${hex(kvaFrom(page, offset))} says it is map ${u32(at.id)}`)
        )
        return
      }
      const type = u32(at.map_type)
      const kernelTypeId = at.btf_vmlinux_value_type_id === undefined ? 0 : u32(at.btf_vmlinux_value_type_id)
      const fields = {
        id,
        name: cString(view, start + at.name, NAME_BYTES),
        type: typeName(type),
        flags: u32(at.map_flags),
        keySize: u32(at.key_size),
        valueSize: u32(at.value_size),
        maxEntries: u32(at.max_entries),
        keyTypeId: u32(at.btf_key_type_id),
        valueTypeId: u32(at.btf_value_type_id)
      }
      const btfPage = pointerPage(view, start + at.btf)
      const btfOffset = pointerOffset(view, start + at.btf)
      const btfId = this.u32At(btfPage, btfOffset, this.layouts.btf.at.id)
      items.push({ info: new MapInfo({ ...fields, btfId }, true), type, kernelTypeId, page, offset })
    })
    return { items, problems: [...problems.map((problem) => within("map_idr", problem)), ...broken.list] }
  }

  private listPrograms(idr: IdrLayout, address: bigint): Listing<ProgramInfo> {
    const { kernel: { btf, space }, layouts } = this
    if (Either.isLeft(layouts.program)) {
      return { items: [], problems: [within("programs", toReason(layouts.program.left))] }
    }
    const { aux, program } = layouts.program.right
    const typeName = typeNames(btf, "bpf_prog_type")
    const items: Array<ProgramInfo> = []
    const broken = new WalkProblems()
    const problems = walkIdr(space, idr, address, (id, page, offset) => {
      const unreadable = (): void => broken.add(within(`program ${id}`, space.faultReason))
      if (!space.window(page, offset, Math.min(program.size, OBJECT_LIMIT))) return unreadable()
      const type = typeName(space.view.getUint32(space.at + program.at.type, true))
      const auxPage = pointerPage(space.view, space.at + program.at.aux)
      const auxOffset = pointerOffset(space.view, space.at + program.at.aux)
      if (!space.window(auxPage, auxOffset, Math.min(aux.size, OBJECT_LIMIT))) return unreadable()
      const found = space.view.getUint32(space.at + aux.at.id, true)
      if (found !== id) {
        return broken.add(corrupted(`program ${id}: the structure there says it is program ${found}`))
      }
      const name = cString(space.view, space.at + aux.at.name, NAME_BYTES)
      items.push({ id, name: wholeName(name, () => this.mainFunction(auxPage, auxOffset)), type })
    })
    return { items, problems: [...problems.map((problem) => within("prog_idr", problem)), ...broken.list] }
  }

  /** The name of a program's main function; "" where it has no BTF. */
  private mainFunction(auxPage: number, auxOffset: number): string {
    const { kernel: { btf, space } } = this
    const found = functionLayout(btf)
    if (Either.isLeft(found)) return ""
    const { at } = found.right
    const aux = kvaFrom(auxPage, auxOffset)
    const types = space.u64(aux + BigInt(at.btf)) ?? 0n
    const functions = space.u64(aux + BigInt(at.func_info)) ?? 0n
    if (types === 0n || functions === 0n || space.u32(aux + BigInt(at.func_info_cnt)) < 1) return ""
    const typeId = space.u32(functions + 4n)
    const known = this.typesOf(types)
    return typeId < 0 || Either.isLeft(known) ? "" : known.right.nameOf(typeId)
  }

  /** Compile a map's types and get ready to walk it. `info` is of this kernel's list. */
  reader(info: MapInfo, consistency: "frozen" | "racing" = "frozen"): MapReader {
    const map = this.maps.items.find((map) => map.info.id === info.id)
    if (map === undefined) return unreadableMap(info, NOT_LISTED)
    const perCpu = isPerCpu(map.type)
    const reader = readerOf({
      info,
      type: map.type,
      types: this.types(map),
      compileValue: (types, typeId) => this.special.compile(types, typeId),
      opened: this.open(map),
      consistency,
      cpus: perCpu ? this.copies.cpus : null
    })
    const { perCpuProblem } = this.kernel
    return perCpu && perCpuProblem !== undefined
      ? { ...reader, problem: combine([reader.problem, perCpuProblem].filter((problem) => problem !== null)) }
      : reader
  }

  /** How to read a map's entries, or why they are not read. */
  open(map: ListedMap): Either.Either<OpenedGuestMap, Reason> {
    const { secondCursor, copies, kernel, layouts, objects } = this
    const open = mapOpeners.get(map.type)
    if (open === undefined) return Either.left(unsupported(`${map.info.type} maps (type ${map.type}) are not read`))
    const typesAt = (address: bigint): Either.Either<Btf, Reason> => this.typesOf(address)
    const given = { ...map, kernel, space: kernel.space, secondCursor, copies, layouts, objects, typesAt }
    const wrong = sizeProblem(given)
    if (wrong !== undefined) return Either.left(wrong)
    return Either.mapLeft(open(given), toReason)
  }

  /** The map's own BTF, on the base of this guest's vmlinux BTF where it is split; undefined: it has none. */
  types(map: ListedMap): Either.Either<Btf, Reason> | undefined {
    const { kernel: { space }, layouts } = this
    const address = space.u64(kvaFrom(map.page, map.offset) + BigInt(layouts.map.at.btf))
    if (address === undefined) return Either.left(space.faultReason)
    return address === 0n ? undefined : Either.mapLeft(this.typesOf(address), (why) => within("its BTF", why))
  }

  private typesOf(object: bigint): Either.Either<Btf, Reason> {
    return Either.map(this.btfObjects.at(object), ({ btf }) => btf)
  }

  private u32At(page: number, offset: number, field: number): number | null {
    const { space } = this.kernel
    return page !== 0 && space.window(page, offset + field, 4) ? space.view.getUint32(space.at, true) : null
  }
}
