import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type { Btf } from "../../btf/Btf.ts"
import { cString } from "../../core/CString.ts"
import { errnoName, type HostLacks } from "../../core/Errors.ts"
import { Native } from "../../core/Native.ts"
import { type Reason, unreadable, unsupported } from "../../core/Reason.ts"
import { possibleCpus } from "../../host/PossibleCpus.ts"
import type { Link } from "../Link.ts"
import { type Listing, MapAccessor, type MapAccessorService, MapNotFound } from "../MapAccessor.ts"
import { MapInfo } from "../MapInfo.ts"
import type { MapReader } from "../MapReader.ts"
import { isPerCpu, typeNames } from "../MapType.ts"
import { NOT_LISTED, type OpenedMap, readerOf, unreadableMap } from "../OpenMap.ts"
import { NAME_BYTES, type Program } from "../Program.ts"
import type { ProgramInfo } from "../Report.ts"
import { Errno, INFO_BYTES, MapInfoAt } from "./calls/BpfAbi.ts"
import { BpfCalls, type CallBuffer } from "./calls/BpfCalls.ts"
import { discover, type Discovered } from "./calls/Discovery.ts"
import { type BtfInfo, btfInfo, LiveBtf } from "./calls/LiveBtf.ts"
import { bpfRefused } from "./calls/Rights.ts"
import { liveLinks } from "./LiveLinks.ts"
import { type LiveMap, liveTable, openLiveMap } from "./LiveOpeners.ts"
import { livePrograms } from "./LivePrograms.ts"
import { type LiveWrite, type MapWrite, writerOf } from "./LiveWrite.ts"
import { syscallValueCodec } from "./SyscallValueCodec.ts"
import { LiveObjects } from "./walks/LiveObjects.ts"

/**
 * Options of the live source.
 *
 * @since 0.1.0
 * @category models
 */
export interface LiveOptions {
  /** Which maps are kept open and listed; all if not given. */
  readonly keep?: (map: MapInfo) => boolean
  /** Files and directories whose inodes' storage is asked for. */
  readonly files?: ReadonlyArray<string>
}

/**
 * The service behind the tag `LiveMaps`.
 *
 * @since 0.1.0
 * @category models
 */
export interface LiveMapsService {
  /** The same as the tag `MapAccessor` of `layerLive`. The lists are those of the moment when it was made. */
  readonly accessor: MapAccessorService
  /** As `accessor.programs`, with all that bpf(2) says of each. */
  readonly programs: Listing<Program>
  readonly links: Listing<Link>
  readonly btfs: Listing<BtfInfo>
  /** Update or delete one entry of a map. */
  readonly write: (map: MapInfo, change: MapWrite) => LiveWrite
}

/**
 * The BPF objects of the running kernel. Maps stay open, and so alive, as long as the scope in which this was made.
 *
 * @since 0.1.0
 * @category services
 */
export class LiveMaps extends Context.Tag("ktstr/bpf/LiveMaps")<LiveMaps, LiveMapsService>() {
  /** Opens every map of the running kernel that `keep` wants. `kernel` is the BTF of vmlinux. */
  static readonly make = (
    kernel: Btf,
    options: LiveOptions = {}
  ): Effect.Effect<LiveMapsService, HostLacks, Native | Scope.Scope> => makeLiveMaps(kernel, options)

  /** `MapAccessor` and `LiveMaps` over bpf(2) of the running kernel. */
  static readonly layer = (
    kernel: Btf,
    options: LiveOptions = {}
  ): Layer.Layer<MapAccessor | LiveMaps, HostLacks, Native> =>
    Layer.scopedContext(
      Effect.map(
        LiveMaps.make(kernel, options),
        (live) => Context.make(LiveMaps, live).pipe(Context.add(MapAccessor, live.accessor))
      )
    )
}

const makeLiveMaps = (
  kernel: Btf,
  options: LiveOptions
): Effect.Effect<LiveMapsService, HostLacks, Native | Scope.Scope> =>
  Effect.gen(function*() {
    const calls = new BpfCalls(yield* Native)
    const scope = yield* Effect.scope
    let omitted = 0
    const keep = (map: MapInfo): boolean => {
      if (options.keep?.(map) !== false) return true
      omitted++
      return false
    }
    const found = yield* Effect.acquireRelease(
      Effect.sync(() => listMaps(calls, kernel, keep)),
      ({ items }) =>
        Effect.sync(() => {
          calls.ended = true
          items.forEach(({ fd }) => calls.close(fd))
        })
    )
    if (found.failed !== 0) return yield* bpfRefused(-found.failed)
    const cpus = possibleCpus()
    const btf = new LiveBtf(calls, kernel)
    const loaded = livePrograms(calls, btf)
    const programs = withFailure("programs", loaded)
    const byId = new Map(found.items.map((map) => [map.info.id, map]))
    const objects = new LiveObjects(
      (id) => programs.items.find((program) => program.id === id),
      (id) => byId.get(id)?.info
    )
    const sources = { calls, btf, objects, possibleCpus: cpus, files: options.files ?? [] }
    const readings = new Map<number, Either.Either<OpenedMap, Reason>>()
    const reader = (info: MapInfo): Effect.Effect<MapReader> =>
      Effect.gen(function*() {
        const map = byId.get(info.id)
        if (map === undefined) return unreadableMap(info, NOT_LISTED)
        if (calls.ended) return unreadableMap(info, unreadable("its scope has closed, and the map with it"))
        const perCpu = isPerCpu(map.type) ? cpus : null
        const table = liveTable(map.fd, info, perCpu)
        const reading = readings.get(info.id)
          ?? (yield* openLiveMap(map, table, sources).pipe(Scope.extend(scope)))
        readings.set(info.id, reading)
        return readerOf({
          info,
          type: map.type,
          types: info.btfId === null ? undefined : btf.byId(info.btfId),
          compileValue: syscallValueCodec,
          opened: reading,
          consistency: "racing",
          cpus: table.copies?.length ?? null
        })
      })
    const links = withFailure("links", liveLinks(calls, btf, objects, loaded, (id) => byId.get(id)?.info.name))
    const maps = { items: found.items.map(({ info }) => info), problems: found.problems }
    return {
      accessor: MapAccessor.make({
        maps,
        programs: { ...programs, items: programs.items.map(brief) },
        reader,
        omitted
      }),
      programs,
      links: { ...links, problems: [...links.problems, NO_LINKLESS] },
      btfs: withFailure("BTF objects", discover(calls, "btf", (fd) => itemOf(btfInfo(calls, fd)))),
      write: (info, change) => {
        const map = byId.get(info.id)
        return map === undefined
          ? new MapNotFound({ wanted: String(info.id), names: maps.items.map(({ name }) => name), omitted })
          : writerOf(map, calls, btf, cpus, change)
      }
    }
  })

const itemOf = <A extends object>(item: A | number) =>
  typeof item === "number" ? errnoName(-item) : { item, keep: false }

/** Ask for an object's info into `info`; a line when that fails. */
const asked = (calls: BpfCalls, fd: number, info: CallBuffer): string | undefined => {
  info.bytes.fill(0)
  const result = calls.info(fd, info)
  return result < 0 ? `BPF_OBJ_GET_INFO_BY_FD: ${errnoName(-result)}` : undefined
}

const listMaps = (calls: BpfCalls, kernel: Btf, keep: (map: MapInfo) => boolean): Discovered<LiveMap> => {
  const typeName = typeNames(kernel, "bpf_map_type")
  const info = calls.buffer(INFO_BYTES.map)
  const u32 = (at: number): number => info.view.getUint32(at, true)
  return discover(calls, "map", (fd) => {
    const problem = asked(calls, fd, info)
    if (problem !== undefined) return problem
    const type = u32(MapInfoAt.type)
    const about = new MapInfo({
      id: u32(MapInfoAt.id),
      name: cString(info.bytes, MapInfoAt.name, NAME_BYTES),
      type: typeName(type),
      flags: u32(MapInfoAt.map_flags),
      keySize: u32(MapInfoAt.key_size),
      valueSize: u32(MapInfoAt.value_size),
      maxEntries: u32(MapInfoAt.max_entries),
      keyTypeId: u32(MapInfoAt.btf_key_type_id),
      valueTypeId: u32(MapInfoAt.btf_value_type_id),
      btfId: u32(MapInfoAt.btf_id) || null
    }, true)
    if (!keep(about)) return undefined
    const kernelTypeId = u32(MapInfoAt.btf_vmlinux_value_type_id)
    return { item: { info: about, type, fd, kernelTypeId, kernelBtfId: u32(MapInfoAt.btf_vmlinux_id) }, keep: true }
  })
}

const brief = ({ id, name, type }: Program): ProgramInfo => ({ id, name, type })

const NO_LINKLESS = unsupported("what is attached without a link is not listed: bpf(2) has no list of it")

/** Kernels before v5.8 have no links; who may list maps but not the others is told so. */
const withFailure = <A>(what: string, { failed, items, problems }: Discovered<A>): Listing<A> => ({
  items,
  problems: failed === 0 || failed === -Errno.EINVAL
    ? problems
    : [...problems, unreadable(`${what} cannot be listed: ${errnoName(-failed)}`)]
})
