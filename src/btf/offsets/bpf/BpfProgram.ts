import { layout } from "../../Layout.ts"
import { offsetGroup } from "../../OffsetGroup.ts"

/**
 * BPF programs: `program.aux` points at `aux`; `used_maps` there at `used_map_cnt` pointers to maps. `verified_insns`
 * came with v5.16. With `bpfProgramStatsOffsets` the ktstr crate's `BpfProgOffsets`.
 * @see include/linux/bpf.h `struct bpf_prog`, `struct bpf_prog_aux`, v6.1 to v7.3
 */
export const bpfProgramOffsets = offsetGroup("bpf-program", "BPF programs: the list of them", function*(btf) {
  return {
    program: yield* layout(btf, "bpf_prog", ["type", "aux"]),
    aux: yield* layout(btf, "bpf_prog_aux", ["id", "name"], ["verified_insns", "used_maps", "used_map_cnt"])
  }
})

/**
 * How often a program ran and for how long, u64s that count while `kernel.bpf_stats_enabled` is set; `program.stats` is
 * a `__percpu` pointer to `stats`. `misses` are runs that recursion forbade.
 * @see include/linux/filter.h `struct bpf_prog_stats`, v5.12 to v7.3
 */
export const bpfProgramStatsOffsets = offsetGroup(
  "bpf-program-stats",
  "BPF programs: runs and their time",
  function*(btf) {
    return {
      program: yield* layout(btf, "bpf_prog", ["stats"]),
      stats: yield* layout(btf, "bpf_prog_stats", ["cnt", "nsecs"], ["misses"])
    }
  }
)
