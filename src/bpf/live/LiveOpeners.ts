import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import { bytesCodec, type Codec } from "../../btf/render/Codec.ts"
import { type Reason, toReason, unreadable, unsupported } from "../../core/Reason.ts"
import type { EntryWalk } from "../EntryWalk.ts"
import type { MapInfo } from "../MapInfo.ts"
import { isIndexed, MapType } from "../MapType.ts"
import type { OpenedMap } from "../OpenMap.ts"
import { indexCodec } from "../values/IndexCodec.ts"
import { positionCodec, recordCodec } from "../values/RingRecord.ts"
import { MapFlag } from "./calls/BpfAbi.ts"
import type { BpfCalls } from "./calls/BpfCalls.ts"
import type { LiveBtf } from "./calls/LiveBtf.ts"
import { addressCodec, openArenaPages } from "./walks/ArenaPages.ts"
import { BatchWalk, type LiveTable } from "./walks/BatchWalk.ts"
import { KeyWalk } from "./walks/KeyWalk.ts"
import type { LiveObjects } from "./walks/LiveObjects.ts"
import { openLiveRing } from "./walks/LiveRing.ts"
import { openLiveStructOps } from "./walks/LiveStructOps.ts"
import {
  allThreads,
  cgroupCodec,
  cgroupKeyCodec,
  cgroupPaths,
  cgroupRoot,
  fileCodec,
  ownersAt,
  OwnerWalk,
  threadCodec
} from "./walks/OwnerWalk.ts"
import { PeekWalk } from "./walks/PeekWalk.ts"

/** A map that this process holds open. */
export interface LiveMap {
  readonly info: MapInfo
  /** The number of its type, `enum bpf_map_type`. */
  readonly type: number
  readonly fd: number
  /** Of struct_ops maps: the type of a value, and the id of the BTF object that has it; 0: vmlinux's. */
  readonly kernelTypeId: number
  readonly kernelBtfId: number
}

/** The sources that reading needs besides the map. */
export interface LiveSources {
  readonly calls: BpfCalls
  readonly btf: LiveBtf
  readonly objects: LiveObjects
  readonly possibleCpus: ReadonlyArray<number>
  /** Files whose storage is read. */
  readonly files: ReadonlyArray<string>
}

/** Types that bpf(2) cannot look up: only the kernel knows what a slot holds. */
const NO_LOOKUP = unsupported("bpf(2) has no lookup for such maps")

/** Where the values of a map lie in what bpf(2) gives. */
export const liveTable = (
  fd: number,
  { keySize, maxEntries, valueSize }: Pick<MapInfo, "keySize" | "valueSize" | "maxEntries">,
  possibleCpus: ReadonlyArray<number> | null
): LiveTable => {
  const plain = { fd, keySize, valueSize, maxEntries, header: 0 }
  if (possibleCpus === null) return { ...plain, copies: null, stride: valueSize }
  const slot = Math.ceil(valueSize / 8) * 8
  const copies = new Int32Array(Math.max(...possibleCpus) + 1).fill(-1)
  possibleCpus.forEach((cpu, index) => copies[cpu] = index * slot)
  return { ...plain, copies, stride: slot * possibleCpus.length }
}

const inBatches = (calls: BpfCalls, table: LiveTable, indexed: boolean) => (): EntryWalk => {
  const walk = new BatchWalk(calls, table)
  return walk.begin() ? walk : new KeyWalk(calls, table, indexed)
}

/** How to read a map's entries, or why they cannot be. What it maps or loads lives as long as the scope. */
export const openLiveMap = (
  map: LiveMap,
  table: LiveTable,
  sources: LiveSources
): Effect.Effect<Either.Either<OpenedMap, Reason>, never, Scope.Scope> => {
  const { calls, objects } = sources
  const { fd, info, type } = map
  const yes = (reading: OpenedMap) => Effect.succeed(Either.right(reading))
  const no = (why: Reason) => Effect.succeed(Either.left(why))
  const byKey = (value?: Codec) =>
    yes({ walk: () => new KeyWalk(calls, table, isIndexed(type)), ...(value === undefined ? {} : { value }) })
  const owned = (walk: () => EntryWalk, key: Codec, asked: string) =>
    yes({ walk, key, problem: unsupported(`only the storage of ${asked} was read: bpf(2) cannot list owners`) })
  switch (type) {
    case MapType.HASH:
    case MapType.PERCPU_HASH:
    case MapType.LRU_HASH:
    case MapType.LRU_PERCPU_HASH:
      return yes({ walk: inBatches(calls, table, false) })
    case MapType.ARRAY:
    case MapType.PERCPU_ARRAY:
      return yes({ walk: inBatches(calls, table, true) })
    case MapType.HASH_OF_MAPS:
      return yes({ walk: inBatches(calls, table, false), value: objects.maps })
    case MapType.ARRAY_OF_MAPS:
      return byKey(objects.maps)
    case MapType.PROG_ARRAY:
      return byKey(objects.programs)
    case MapType.DEVMAP:
      return byKey(objects.devices)
    case MapType.DEVMAP_HASH: // its keys can vanish
      return yes({ walk: () => new KeyWalk(calls, table, false), value: objects.devices })
    case MapType.CPUMAP:
      return byKey(objects.cpus)
    case MapType.STACK_TRACE:
      return byKey((info.flags & MapFlag.STACK_BUILD_ID) === 0 ? objects.frames : objects.buildIdFrames)
    case MapType.SOCKMAP:
    case MapType.SOCKHASH:
    case MapType.REUSEPORT_SOCKARRAY:
      return info.valueSize === 8
        ? byKey(objects.sockets)
        : no(unsupported("bpf(2) gives sockets' cookies, which do not fit values of 4 bytes"))
    case MapType.QUEUE:
    case MapType.STACK:
      return yes({ walk: () => new PeekWalk(calls, fd, info.valueSize), key: indexCodec })
    case MapType.TASK_STORAGE: {
      const walk = () => new OwnerWalk(calls, fd, info.valueSize, allThreads(calls.native))
      return owned(walk, threadCodec, "the threads in /proc")
    }
    case MapType.CGROUP_STORAGE:
    case MapType.PERCPU_CGROUP_STORAGE:
      return yes({ walk: inBatches(calls, table, false), key: cgroupKeyCodec(cgroupRoot()) })
    case MapType.CGRP_STORAGE: {
      const root = cgroupRoot()
      if (root === undefined) return no(unsupported("no cgroup2 file system is mounted: its cgroups cannot be found"))
      const paths = cgroupPaths(root)
      const walk = () => new OwnerWalk(calls, fd, info.valueSize, ownersAt(paths))
      return owned(walk, cgroupCodec(root, paths), `the ${paths.length} cgroups under ${root}`)
    }
    case MapType.INODE_STORAGE: {
      const { files } = sources
      if (files.length === 0) return no(unsupported("bpf(2) cannot list owners, and no `files` were given"))
      const walk = () => new OwnerWalk(calls, fd, info.valueSize, ownersAt(files))
      return owned(walk, fileCodec(files), `${files.length} named files`)
    }
    case MapType.SK_STORAGE:
      return no(
        unsupported("bpf(2) finds a socket's storage only by a descriptor of its own process, and cannot list sockets")
      )
    case MapType.STRUCT_OPS: {
      const types = map.kernelBtfId === 0 ? Either.right(sources.btf.kernel) : sources.btf.byId(map.kernelBtfId)
      if (Either.isLeft(types)) return no(types.left)
      const opened = openLiveStructOps(calls, table, types.right, map.kernelTypeId, objects)
      return Effect.succeed(Either.mapLeft(opened, toReason))
    }
    case MapType.RINGBUF:
    case MapType.USER_RINGBUF:
      return openLiveRing(calls.native, sources.btf.kernel, fd, info.maxEntries).pipe(
        Effect.map(({ details, walk }) =>
          Either.right({ walk, key: positionCodec, value: recordCodec, details: details() })
        ),
        Effect.catchAll((error) => no(unreadable(error.message)))
      )
    case MapType.ARENA:
      return openArenaPages(calls, sources.btf.kernel, fd, info.maxEntries).pipe(
        Effect.map(({ details, walk }) => Either.right({ walk, details, key: addressCodec, value: bytesCodec(4096) })),
        Effect.catchAll((error) => no(toReason(error)))
      )
    case MapType.BLOOM_FILTER:
      return no(unsupported("bpf(2) can only test whether a value may be in the filter; it cannot list values"))
    case MapType.PERF_EVENT_ARRAY:
    case MapType.CGROUP_ARRAY:
    case MapType.XSKMAP:
      return no(NO_LOOKUP)
    default:
      // Newer types than these: most have keys and values.
      return yes({ walk: inBatches(calls, table, isIndexed(type)) })
  }
}
