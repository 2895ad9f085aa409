import { MapType } from "../MapType.ts"
import { openArena } from "./walks/ArenaWalk.ts"
import { openArray } from "./walks/ArrayWalk.ts"
import { openBloom } from "./walks/BloomWalk.ts"
import type { MapOpener } from "./walks/GuestMap.ts"
import { openHash } from "./walks/HashWalk.ts"
import {
  openArrayOfMaps,
  openCgroups,
  openCpus,
  openDeviceHash,
  openDevices,
  openHashOfMaps,
  openPerfEvents,
  openPrograms,
  openReuseport,
  openSocketHash,
  openSockets,
  openXdpSockets
} from "./walks/ObjectMaps.ts"
import { openQueue } from "./walks/QueueWalk.ts"
import { openRing } from "./walks/RingWalk.ts"
import { openStackTraces } from "./walks/StackTraces.ts"
import { openCgroupStorage, openLocalStorage } from "./walks/StorageMaps.ts"
import { openStructOps } from "./walks/StructOps.ts"
import { openTrie } from "./walks/TrieWalk.ts"

/** How each map type is read, by its number. */
export const mapOpeners: ReadonlyMap<number, MapOpener> = new Map<number, MapOpener>([
  [MapType.HASH, openHash],
  [MapType.ARRAY, openArray],
  [MapType.PROG_ARRAY, openPrograms],
  [MapType.PERF_EVENT_ARRAY, openPerfEvents],
  [MapType.PERCPU_HASH, openHash],
  [MapType.PERCPU_ARRAY, openArray],
  [MapType.STACK_TRACE, openStackTraces],
  [MapType.CGROUP_ARRAY, openCgroups],
  [MapType.LRU_HASH, openHash],
  [MapType.LRU_PERCPU_HASH, openHash],
  [MapType.LPM_TRIE, openTrie],
  [MapType.ARRAY_OF_MAPS, openArrayOfMaps],
  [MapType.HASH_OF_MAPS, openHashOfMaps],
  [MapType.DEVMAP, openDevices],
  [MapType.SOCKMAP, openSockets],
  [MapType.CPUMAP, openCpus],
  [MapType.XSKMAP, openXdpSockets],
  [MapType.SOCKHASH, openSocketHash],
  [MapType.CGROUP_STORAGE, openCgroupStorage],
  [MapType.REUSEPORT_SOCKARRAY, openReuseport],
  [MapType.PERCPU_CGROUP_STORAGE, openCgroupStorage],
  [MapType.QUEUE, openQueue],
  [MapType.STACK, openQueue],
  [MapType.SK_STORAGE, openLocalStorage],
  [MapType.DEVMAP_HASH, openDeviceHash],
  [MapType.STRUCT_OPS, openStructOps],
  [MapType.RINGBUF, openRing],
  [MapType.INODE_STORAGE, openLocalStorage],
  [MapType.TASK_STORAGE, openLocalStorage],
  [MapType.BLOOM_FILTER, openBloom],
  [MapType.USER_RINGBUF, openRing],
  [MapType.CGRP_STORAGE, openLocalStorage],
  [MapType.ARENA, openArena]
])
