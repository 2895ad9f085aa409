import { relative } from "node:path"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** Seconds of the slowest files, seen on two shared cores. One that is missing here only makes the run's end later. */
const SECONDS: Readonly<Record<string, number>> = {
  "test/kvm/native/Inside.test.ts": 936,
  "test/harness/run/wrong.test.ts": 311,
  "test/guest/differential.test.ts": 287,
  "test/kvm/native/Topology.test.ts": 276,
  "test/cli/resources.test.ts": 189,
  "test/monitor/FailingSchedulers.test.ts": 187,
  "test/bpf/hostile.test.ts": 169,
  "test/kvm/native/VirtioInside.test.ts": 169,
  "test/cli/vm/vm.test.ts": 130,
  "test/cli/help/accepted.test.ts": 123,
  "test/guest/kinds.test.ts": 122,
  "test/package/app.test.ts": 121,
  "test/cli/signalRounds.test.ts": 96,
  "test/kvm/qemu/Qemu.test.ts": 78,
  "test/monitor/FailurePageGuest.test.ts": 77,
  "test/cli/image.test.ts": 74,
  "test/core/kernels/debian/DebianKernel.test.ts": 71,
  "test/kvm/qemu/WrongQemu.test.ts": 68,
  "test/cli/boot.test.ts": 68,
  "test/live/guest.test.ts": 60,
  "test/core/image/KernelImage.test.ts": 47,
  "test/sched/SchedGuest.test.ts": 45
}

/**
 * Slow files first: begun last, one of ten minutes keeps a machine's other worker idle for as long. The others come in
 * vitest's own order, which knows durations only where it ran before.
 */
export class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const secondsOf = ({ moduleId }: TestSpecification) => SECONDS[relative(process.cwd(), moduleId)] ?? 0
    return (await super.sort(files)).sort((a, b) => secondsOf(b) - secondsOf(a))
  }
}
