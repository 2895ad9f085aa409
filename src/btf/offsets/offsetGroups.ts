import type { GroupParts, OffsetGroup } from "../OffsetGroup.ts"
import { arenaOffsets } from "./bpf/Arena.ts"
import { bpfHashOffsets, bpfMapOffsets, bpfStructOpsOffsets } from "./bpf/BpfMap.ts"
import { bpfProgramOffsets, bpfProgramStatsOffsets } from "./bpf/BpfProgram.ts"
import { localStorageOffsets } from "./bpf/LocalStorage.ts"
import { ringBufferOffsets } from "./bpf/RingBuffer.ts"
import { stackMapOffsets } from "./bpf/StackMap.ts"
import { idrOffsets, xarrayOffsets } from "./Idr.ts"
import { cpuTimeOffsets } from "./sched/CpuTime.ts"
import { numaOffsets } from "./sched/Numa.ts"
import { runQueueOffsets, scxRunQueueOffsets } from "./sched/RunQueue.ts"
import { schedDomainOffsets, schedDomainStatsOffsets } from "./sched/SchedDomain.ts"
import { schedstatOffsets } from "./sched/Schedstat.ts"
import { scxEventOffsets } from "./sched/ScxEvents.ts"
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
} from "./sched/ScxWalk.ts"
import { scxWatchdogOffsets } from "./sched/ScxWatchdog.ts"
import { taskOffsets } from "./sched/Task.ts"

/**
 * All groups, in the order that they are shown in.
 *
 * @since 0.1.0
 * @category constants
 */
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
