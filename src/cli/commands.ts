import * as Command from "@effect/cli/Command"
import { btf } from "./btf/btfCommand.ts"
import { doctor } from "./doctorCommand.ts"
import { qemu } from "./harness/qemuCommand.ts"
import { list, replay, run } from "./harness/runCommand.ts"
import type { Group } from "./help/Help.ts"
import { kernel } from "./kernel/kernelCommand.ts"
import { diff } from "./maps/diffCommand.ts"
import { dump } from "./maps/dumpCommand.ts"
import { maps } from "./maps/mapsCommand.ts"
import { watch } from "./maps/watchCommand.ts"
import { monitor } from "./monitor/monitorCommand.ts"
import { show } from "./monitor/showCommand.ts"
import { links } from "./programs/linksCommand.ts"
import { progs } from "./programs/progsCommand.ts"
import { sched } from "./sched/schedCommand.ts"
import { vm } from "./vm/vmCommand.ts"

/** The whole command line. */
export const ktstr = Command.make("ktstr").pipe(
  Command.withDescription(
    "Boot a Linux kernel in a throw-away VM, freeze it, read its state from memory"
  ),
  Command.withSubcommands([
    dump,
    maps,
    progs,
    links,
    sched,
    monitor,
    show,
    diff,
    watch,
    vm,
    run,
    list,
    replay,
    kernel,
    btf,
    qemu,
    doctor
  ])
)

/** The headings of commands in `ktstr --help`. */
export const commandGroups: ReadonlyArray<Group> = [
  { title: "Look", names: ["dump", "maps", "progs", "links", "sched", "monitor", "show"] },
  { title: "Compare", names: ["diff", "watch"] },
  { title: "Run", names: ["vm", "run", "list", "replay"] },
  { title: "Kernels", names: ["kernel", "btf"] },
  { title: "Host", names: ["doctor", "qemu"] }
]

/** The last line of `ktstr --help`. */
export const footer = "Also: --version, --completions bash|zsh|fish, COMMAND --help, --log-level debug"

/** The examples of each command's help, by its path. */
export const examples: Readonly<Record<string, ReadonlyArray<string>>> = {
  "": [
    "ktstr vm shell --kernel debian:6.12-cloud",
    "ktstr run --scheduler ./scx_simple --kernel debian:7.3-cloud"
  ],
  "dump": ["ktstr dump --image guest.mem --map counters --json"],
  "maps": ["ktstr maps show counters --live"],
  "maps list": ["ktstr maps list --image guest.mem --type hash"],
  "maps show": ["ktstr maps show counters --live --limit 10"],
  "maps write": ["ktstr maps write --live --map counters --key 3 =0"],
  "progs": ["ktstr progs list --live"],
  "progs list": ["ktstr progs list --image guest.mem --json"],
  "progs show": ["ktstr progs show my_prog --live"],
  "links": ["ktstr links --image guest.mem"],
  "diff": ["ktstr diff before.json after.json"],
  "watch": ["ktstr watch --live --map counters --every 250ms"],
  "vm": ["ktstr vm run --kernel debian:6.12-cloud --exec 'uname -r'"],
  "vm run": [
    "ktstr vm run --kernel debian:6.12-cloud --cpus 2 --exec 'uname -r; nproc'",
    "ktstr vm run --kernel debian:7.3-cloud --exec-file test.sh --on-failure dump.json",
    "ktstr vm run --kernel debian:7.3-cloud --exec-file test.sh --snapshots DIR --snapshot periodic=8/60s"
  ],
  "vm core": [
    "ktstr vm core --kernel debian:6.12-cloud --exec true --out vmcore",
    "ktstr vm core --image guest.mem --out vmcore"
  ],
  "vm shell": ["ktstr vm shell --kernel debian:6.12-cloud --memory-mib 1024"],
  "kernel": ["ktstr kernel fetch debian:6.12-cloud"],
  "kernel list": ["ktstr kernel list --json"],
  "kernel path": ["ktstr kernel path debian:6.12-cloud"],
  "kernel show": ["ktstr kernel show debian:6.12-cloud --config"],
  "kernel search": ["ktstr kernel search '6.1*'"],
  "kernel fetch": ["ktstr kernel fetch debian:6.12-cloud"],
  "kernel build": ["ktstr kernel build --source ~/linux --extra-kconfig my.config"],
  "kernel clean": ["ktstr kernel clean --keep 3"],
  "btf": ["ktstr btf show task_struct"],
  "btf show": ["ktstr btf show 'struct rq' --kernel debian:6.12-cloud"],
  "btf offsets": ["ktstr btf offsets --group task"],
  "btf header": ["ktstr btf header --btf my.bpf.o"],
  "btf diff": ["ktstr btf diff debian:6.1-cloud debian:6.12-cloud 'struct bpf_map'"],
  "sched": ["ktstr sched show --image guest.mem"],
  "sched show": ["ktstr sched show --kernel debian:7.3-cloud --include scx_simple --exec 'scx_simple & sleep 2'"],
  "sched tasks": ["ktstr sched tasks --image guest.mem --sort wait --class ext"],
  "sched dsqs": ["ktstr sched dsqs global --image guest.mem"],
  "sched domains": ["ktstr sched domains --image guest.mem"],
  "sched diff": ["ktstr sched diff before.json after.json"],
  "sched watch": ["ktstr sched watch --kernel debian:7.3-cloud --every 500ms"],
  "monitor": [
    "ktstr monitor --kernel debian:7.3-cloud --include ./scx_simple --exec 'scx_simple & sleep 9' --every 100ms"
  ],
  "show": ["ktstr show dump.json", "ktstr show dump.json --html report.html"],
  "doctor": ["ktstr doctor --json"],
  "run": [
    "ktstr run --scheduler ./scx_simple --kernel debian:7.3-cloud --seeds 20",
    "ktstr run --kernel debian:6.18-cloud --kernel debian:7.3-cloud --topology tiny-2llc --topology smt-2llc"
  ],
  "list": [
    "ktstr list --kernel 6.18 --kernel 7.3 --topology tiny-2llc --seeds 20",
    "ktstr list test/scheduler.test.ts"
  ],
  "replay": ["ktstr replay .ktstr/runs/20261128T210000-1a2b3c4d"],
  "qemu": ["ktstr qemu fetch"],
  "qemu fetch": ["ktstr qemu fetch"]
}
