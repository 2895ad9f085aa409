import type { GroupParts, OffsetGroup } from "../OffsetGroup.ts"
import { arenaOffsets } from "./bpf/Arena.ts"
import { bpfHashOffsets, bpfMapOffsets, bpfStructOpsOffsets } from "./bpf/BpfMap.ts"
import { bpfProgramOffsets, bpfProgramStatsOffsets } from "./bpf/BpfProgram.ts"
import { localStorageOffsets } from "./bpf/LocalStorage.ts"
import { ringBufferOffsets } from "./bpf/RingBuffer.ts"
import { stackMapOffsets } from "./bpf/StackMap.ts"
import { cpuTimeOffsets } from "./CpuTime.ts"
import { idrOffsets, xarrayOffsets } from "./Idr.ts"
import { numaOffsets } from "./Numa.ts"
import { runQueueOffsets, scxRunQueueOffsets } from "./RunQueue.ts"
import { schedDomainOffsets, schedDomainStatsOffsets } from "./SchedDomain.ts"
import { schedstatOffsets } from "./Schedstat.ts"
import { scxEventOffsets } from "./ScxEvents.ts"
import {
  scxWalkDispatchQOffsets,
  scxWalkDsqNodeOffsets,
  scxWalkEntityOffsets,
  scxWalkPcpuOffsets,
  scxWalkPnodeOffsets,
  scxWalkRhashtableOffsets,
  scxWalkRqOffsets,
  scxWalkSchedOffsets,
  scxWalkScxRqOffsets,
  scxWalkTaskOffsets
} from "./ScxWalk.ts"
import { scxWatchdogOffsets } from "./ScxWatchdog.ts"
import { taskOffsets } from "./Task.ts"

/** All groups, in the order that they are shown in. */
export const offsetGroups: ReadonlyArray<OffsetGroup<GroupParts>> = [
  runQueueOffsets,
  scxRunQueueOffsets,
  scxEventOffsets,
  scxWatchdogOffsets,
  schedstatOffsets,
  schedDomainOffsets,
  schedDomainStatsOffsets,
  cpuTimeOffsets,
  taskOffsets,
  numaOffsets,
  xarrayOffsets,
  idrOffsets,
  bpfMapOffsets,
  bpfHashOffsets,
  bpfStructOpsOffsets,
  localStorageOffsets,
  arenaOffsets,
  ringBufferOffsets,
  stackMapOffsets,
  bpfProgramOffsets,
  bpfProgramStatsOffsets,
  scxWalkRqOffsets,
  scxWalkScxRqOffsets,
  scxWalkTaskOffsets,
  scxWalkEntityOffsets,
  scxWalkDsqNodeOffsets,
  scxWalkDispatchQOffsets,
  scxWalkSchedOffsets,
  scxWalkPnodeOffsets,
  scxWalkPcpuOffsets,
  scxWalkRhashtableOffsets
]
