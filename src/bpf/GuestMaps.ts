import * as Either from "effect/Either"
import { Btf } from "../btf/Btf.ts"
import { bytesCodec, type Codec, compile } from "../btf/Codec.ts"
import { hex, kvaFrom, kvaOffset, kvaPage } from "../core/Address.ts"
import type { GuestKernel } from "../memory/GuestKernel.ts"
import { pointerOffset, pointerPage } from "../memory/KernelSpace.ts"
import { type IdrLayout, idrLayout, walkIdr } from "../memory/Xarray.ts"
import { ArrayWalk } from "./ArrayWalk.ts"
import { type BpfLayouts, bpfLayouts } from "./BpfLayouts.ts"
import { HashWalk } from "./HashWalk.ts"
import { indexCodec } from "./IndexCodec.ts"
import { BpfUnreadable, type Listing } from "./MapAccessor.ts"
import { MapInfo } from "./MapInfo.ts"
import type { MapReader } from "./MapReader.ts"
import { MapType, typeNames } from "./MapType.ts"
import { PerCpuCopies } from "./PerCpuCopies.ts"
import type { ProgramInfo } from "./Report.ts"

/** A map, and the page number and offset of its `struct bpf_map`. */
interface GuestMap {
  readonly info: MapInfo
  readonly page: number
  readonly offset: number
}

/** `BPF_OBJ_NAME_LEN` (include/uapi/linux/bpf.h): the bytes of a map's or program's name, with its NUL. */
const NAME_BYTES = 16
/** No kernel object that is read here is longer, in bytes; what claims to be is corrupted. */
const OBJECT_LIMIT = 2 ** 16
/** Elements in use beyond `max_entries`: one spare a CPU (kernel/bpf/hashtab.c `extra_elems`, v6.12), with room. */
const SPARE_ELEMENTS = 8192

/**
 * The BPF maps and programs in a guest's memory. Plain code; `GuestMapAccessor` gives it to Effect programs. Lists are
 * read once and kept: the memory stands still.
 */
export class GuestMaps {
  readonly maps: Listing<GuestMap>
  readonly programs: Listing<ProgramInfo>
  private readonly copies: PerCpuCopies
  private readonly typesAt = new Map<string, Either.Either<Btf, string>>()

  static readonly make = (kernel: typeof GuestKernel.Service): Either.Either<GuestMaps, BpfUnreadable> =>
    Either.gen(function*() {
      const needsBtf = (error: { readonly message: string }) =>
        new BpfUnreadable({
          what: `BPF structures of kernel ${kernel.release}`,
          why: error.message,
          mend: "its BTF must describe them: is this a Linux 5.4 or newer with CONFIG_BPF_SYSCALL?"
        })
      const layouts = yield* Either.mapLeft(bpfLayouts(kernel.btf), needsBtf)
      const idr = yield* Either.mapLeft(idrLayout(kernel.btf), needsBtf)
      const at = (symbol: string): Either.Either<bigint, BpfUnreadable> =>
        Either.fromNullable(kernel.symbol(symbol), () =>
          new BpfUnreadable({
            what: symbol,
            why: `the symbols of kernel ${kernel.release} lack it`,
            mend: "build the kernel with CONFIG_BPF_SYSCALL=y and CONFIG_KALLSYMS_ALL=y, or give its vmlinux"
          }))
      return new GuestMaps(kernel, layouts, idr, yield* at("map_idr"), yield* at("prog_idr"))
    })

  private constructor(
    private readonly kernel: typeof GuestKernel.Service,
    private readonly layouts: BpfLayouts,
    idr: IdrLayout,
    mapIdr: bigint,
    progIdr: bigint
  ) {
    this.copies = new PerCpuCopies(kernel.space, kernel.perCpuOffsets)
    this.maps = this.listMaps(idr, mapIdr)
    this.programs = this.listPrograms(idr, progIdr)
  }

  private listMaps(idr: IdrLayout, address: bigint): Listing<GuestMap> {
    const { kernel: { btf, space }, layouts: { map: { at, size } } } = this
    const typeName = typeNames(btf, "bpf_map_type")
    const items: Array<GuestMap> = []
    const broken: Array<string> = []
    const problems = walkIdr(space, idr, address, (id, page, offset) => {
      if (!space.window(page, offset, Math.min(size, OBJECT_LIMIT))) {
        broken.push(`map ${id}: its bpf_map at ${space.faultText}`)
        return
      }
      const view = space.view
      const start = space.at
      const u32 = (field: number): number => view.getUint32(start + field, true)
      if (u32(at.id) !== id) {
        broken.push(`map ${id}: the structure at ${hex(kvaFrom(page, offset))} says it is map ${u32(at.id)}`)
        return
      }
      const fields = {
        id,
        name: nameAt(view, start + at.name),
        type: typeName(u32(at.map_type)),
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
      items.push({ info: new MapInfo({ ...fields, btfId }), page, offset })
    })
    return { items, problems: [...problems.map((problem) => `map_idr: ${problem}`), ...broken] }
  }

  private listPrograms(idr: IdrLayout, address: bigint): Listing<ProgramInfo> {
    const { kernel: { btf, space }, layouts } = this
    if (Either.isLeft(layouts.program)) return { items: [], problems: [`programs: ${layouts.program.left.message}`] }
    const { aux, program } = layouts.program.right
    const typeName = typeNames(btf, "bpf_prog_type")
    const items: Array<ProgramInfo> = []
    const broken: Array<string> = []
    const problems = walkIdr(space, idr, address, (id, page, offset) => {
      const unreadable = (): void => void broken.push(`program ${id}: ${space.faultText}`)
      if (!space.window(page, offset, Math.min(program.size, OBJECT_LIMIT))) return unreadable()
      const type = typeName(space.view.getUint32(space.at + program.at.type, true))
      const auxPage = pointerPage(space.view, space.at + program.at.aux)
      const auxOffset = pointerOffset(space.view, space.at + program.at.aux)
      if (!space.window(auxPage, auxOffset, Math.min(aux.size, OBJECT_LIMIT))) return unreadable()
      const found = space.view.getUint32(space.at + aux.at.id, true)
      if (found !== id) return void broken.push(`program ${id}: the structure there says it is program ${found}`)
      items.push({ id, name: nameAt(space.view, space.at + aux.at.name), type })
    })
    return { items, problems: [...problems.map((problem) => `prog_idr: ${problem}`), ...broken] }
  }

  /** Compile a map's types and get ready to walk it. `info` is of this kernel's list. */
  reader(info: MapInfo): MapReader {
    const map = this.maps.items.find((map) => map.info.id === info.id)
    const problems: Array<string> = []
    const types = this.typesOf(map, problems)
    const codec = (what: string, typeId: number, size: number, plain: Codec): Codec => {
      if (types === undefined || typeId === 0) return plain
      const typed = compile(types, typeId)
      if (typed.size === size) return typed
      problems.push(`its ${what} type has ${typed.size} bytes, its ${what}s ${size}: shown as bytes`)
      return plain
    }
    const { keySize, keyTypeId, valueSize, valueTypeId } = info
    const isArray = info.type.endsWith("array")
    const key = codec("key", keyTypeId, keySize, isArray && keySize === 4 ? indexCodec : bytesCodec(keySize))
    const value = codec("value", valueTypeId, valueSize, bytesCodec(valueSize))
    const walk = map === undefined ? "it is not in the list" : this.walkOf(map)
    if (typeof walk === "string") problems.push(walk)
    const perCpu = info.type.includes("percpu")
    if (perCpu && this.kernel.perCpuProblem !== undefined) problems.push(this.kernel.perCpuProblem)
    return {
      info,
      consistency: typeof walk === "string" ? "unseen" : "frozen",
      key,
      value,
      cpus: perCpu ? this.copies.cpus : null,
      walk: typeof walk === "string" ? null : walk,
      problem: problems.length === 0 ? null : problems.join("; ")
    }
  }

  /** The map's own BTF, on the base of this guest's vmlinux BTF where it is split. */
  private typesOf(map: GuestMap | undefined, problems: Array<string>): Btf | undefined {
    const { kernel: { space }, layouts } = this
    if (map === undefined || !space.window(map.page, map.offset + layouts.map.at.btf, 8)) return undefined
    const page = pointerPage(space.view, space.at)
    const offset = pointerOffset(space.view, space.at)
    if (page === 0) return undefined
    const cacheKey = `${page}:${offset}`
    const known = this.typesAt.get(cacheKey) ?? this.readBtf(page, offset, `BTF of map ${map.info.id}`)
    this.typesAt.set(cacheKey, known)
    if (Either.isRight(known)) return known.right
    problems.push(`${known.left}: shown as bytes`)
    return undefined
  }

  private readBtf(page: number, offset: number, subject: string): Either.Either<Btf, string> {
    const { kernel: { btf, space }, layouts: { btf: { at, size } } } = this
    if (!space.window(page, offset, Math.min(size, OBJECT_LIMIT))) return Either.left(`${subject}: ${space.faultText}`)
    const data = space.view.getBigUint64(space.at + at.data, true)
    const dataSize = space.view.getUint32(space.at + at.data_size, true)
    const isSplit = space.view.getBigUint64(space.at + at.base_btf, true) !== 0n
    const bytes = space.read(data, dataSize)
    if (bytes === undefined) return Either.left(`${subject}: ${space.faultText}`)
    return Either.mapLeft(Btf.parse(bytes, isSplit ? { subject, base: btf } : { subject }), (error) => error.message)
  }

  /** How to walk a map's entries, or why they are not read. */
  private walkOf(map: GuestMap): (() => ArrayWalk | HashWalk) | string {
    const { copies, kernel: { space }, layouts } = this
    const { keySize, maxEntries, type, valueSize } = map.info
    const typeNumber = this.u32At(map.page, map.offset, layouts.map.at.map_type)
    const perCpu = typeNumber === MapType.PERCPU_ARRAY || typeNumber === MapType.PERCPU_HASH ||
        typeNumber === MapType.LRU_PERCPU_HASH
      ? copies
      : undefined
    const memoryBytes = this.kernel.memory.size
    switch (typeNumber) {
      case MapType.ARRAY:
      case MapType.PERCPU_ARRAY: {
        if (keySize !== 4) return `corrupted: an array with keys of ${keySize} bytes`
        if (maxEntries * Math.min(valueSize, 8) > memoryBytes) {
          return `corrupted: ${maxEntries} elements do not fit the guest's memory`
        }
        return () => new ArrayWalk(space, map.page, map.offset + layouts.array.at.value, valueSize, maxEntries, perCpu)
      }
      case MapType.HASH:
      case MapType.PERCPU_HASH:
      case MapType.LRU_HASH:
      case MapType.LRU_PERCPU_HASH: {
        if (Either.isLeft(layouts.hash)) return layouts.hash.left.message
        const { bucket, element, table } = layouts.hash.right
        if (!space.window(map.page, map.offset, Math.min(table.size, OBJECT_LIMIT))) return space.faultText
        const { view } = space
        const buckets = view.getBigUint64(space.at + table.at.buckets, true)
        const bucketCount = view.getUint32(space.at + table.at.n_buckets, true)
        if (bucketCount * bucket.size > memoryBytes || keySize === 0 || keySize > OBJECT_LIMIT) {
          return `corrupted: ${bucketCount} buckets, keys of ${keySize} bytes`
        }
        const hashTable = {
          bucketsPage: kvaPage(buckets),
          bucketsOffset: kvaOffset(buckets),
          bucketCount,
          keySize,
          valueSize,
          elementLimit: Math.min(maxEntries + SPARE_ELEMENTS, Math.ceil(memoryBytes / element.at.key))
        }
        const shape = {
          bucketSize: bucket.size,
          bucketFirst: bucket.at["head.first"],
          next: element.at["hash_node.next"],
          key: element.at.key
        }
        return () => new HashWalk(space, shape, hashTable, perCpu)
      }
      default:
        return `${type} maps are not read yet`
    }
  }

  private u32At(page: number, offset: number, field: number): number | null {
    const { space } = this.kernel
    return page !== 0 && space.window(page, offset + field, 4) ? space.view.getUint32(space.at, true) : null
  }
}

/** A NUL-terminated name, as UTF-8 with replacement characters for what is none. */
const nameAt = (view: DataView, at: number): string => {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, NAME_BYTES)
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.slice(0, end))
}
