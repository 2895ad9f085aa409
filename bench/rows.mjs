// The rows of the bench, in the order of the table. A row has a name for --only and gives results, each with an id that
// stays the same from one version to the next, a value, and the limit that we set ourselves, if any.
import { compileBig, ENTRIES, scratch } from "./images.mjs"
import { bootRatios, freezeTimes } from "./kvm.mjs"
import { liveRatio } from "./live.mjs"
import { here, measure, measurePair, once, pair } from "./measure.mjs"
import { smokes, watched } from "./runs.mjs"

/** Keyed types besides hash, each with what big.bpf.c is compiled with. Per-CPU types are filled on one CPU and on two. */
const TYPES = {
  array: ["TYPE=BPF_MAP_TYPE_ARRAY", "ARRAY"],
  lru_hash: ["TYPE=BPF_MAP_TYPE_LRU_HASH"],
  lpm_trie: ["TYPE=BPF_MAP_TYPE_LPM_TRIE", "TRIE"],
  percpu_array: ["TYPE=BPF_MAP_TYPE_PERCPU_ARRAY", "PERCPU", "ARRAY"],
  percpu_hash: ["TYPE=BPF_MAP_TYPE_PERCPU_HASH", "PERCPU"],
  lru_percpu_hash: ["TYPE=BPF_MAP_TYPE_LRU_PERCPU_HASH", "PERCPU"]
}
/** Types whose slots hold kernel objects, as slots.c names its maps. */
const SLOTS = [
  "array_of_maps",
  "hash_of_maps",
  "prog_array",
  "cgroup_array",
  "devmap",
  "devmap_hash",
  "sockmap",
  "sockhash"
]
/** What micro.mjs times, and whether it needs an image. */
const MICRO = {
  layout: ["places of ten members of task_struct", false],
  codec: ["a whole task_struct to JSON", false],
  escape: ["1 KiB of text with one character to escape", false],
  kallsyms: ["a symbol's name and address from kallsyms", true],
  walk: ["an address by the page tables", true]
}

/** Cloud kernels of Debian whose images are attached to. */
const ATTACH_KERNELS = ["6.1", "6.12", "6.18", "7.3"]

/** Parts of an attach, as attach.mjs names them. */
const ATTACH = {
  map: "to map the image",
  find: "to find the kernel in it",
  kallsyms: "to read its symbols' table",
  btf: "to copy and index its BTF",
  maps: "to list its maps",
  first: "to compile the map's types and read the entry"
}

const least = (id, what, unit, value, limit = null) => ({ id, what, unit, value, limit, better: "less" })
const most = (id, what, unit, value, limit = null) => ({ id, what, unit, value, limit, better: "more" })

/** Parts of a smoke test's CPU time, as smoke.mjs names them: of another boot of the same run. */
const SMOKE = {
  agent: "by QEMU until the agent is there",
  attach: "by QEMU until the scheduler is attached",
  rest: "by QEMU from then to the end"
}

const seconds = (id, what, value, limit) => least(id, what, "s", value, limit)
const notThere = (id, what, skipped) => ({ id, what, skipped })

/** Rows of exact runs; two are of one boot. */
const runRows = () => {
  const run = once(() => watched("7.3"))
  return [
    {
      name: "ready",
      run: async () => {
        const what = "an exact guest's seconds from its init's start until the agent is ready"
        const { ready, skipped } = await run()
        return [skipped === undefined ? seconds("ready", what, ready, 0.4) : notThere("ready", what, skipped)]
      }
    },
    {
      name: "counter",
      run: async () => {
        const what = "a worker's counters read while the guest runs, p99"
        const { counter, skipped } = await run()
        return [skipped === undefined ? least("counter", what, "ms", counter, 1) : notThere("counter", what, skipped)]
      }
    },
    {
      name: "smoke",
      run: async () =>
        (await smokes()).flatMap(({ id, limit, name, parts, skipped, total }) => {
          if (skipped !== undefined) return [notThere(`smoke-${name}`, `ktstr run's smoke test on ${id}`, skipped)]
          const what = `CPU seconds of ktstr run's smoke test on ${id}, ${parts.guest.toFixed(1)} s of the guest`
          return [
            seconds(`smoke-${name}`, what, total, limit),
            ...Object.entries(SMOKE).map(([part, text]) =>
              seconds(`smoke-${name}-${part}`, `  ${text}, booted again`, parts[part])
            )
          ]
        })
    }
  ]
}

/** The rows, with the images that they read. */
export const rowsOf = (images) => {
  const small = () => images.big("small", 1, { memoryMib: 512 })
  const stream = once(async () => {
    const measured = measure(5, "stream.mjs", await images.big("million", ENTRIES / 1000), "big_map")
    if (measured.entries !== ENTRIES) throw new Error(`the image has ${measured.entries} entries`)
    return measured
  })
  const streamOf = (id, type, { entries, grownMB, perSecond }) =>
    most(id, `${entries} entries of ${type} to NDJSON, ${grownMB.toFixed(0)} MB grown`, "entries/s", perSecond, 500_000)

  const typeRows = Object.entries(TYPES).flatMap(([type, defines]) =>
    (defines.includes("PERCPU") ? [1, 2] : [1]).map((cpus) => ({
      name: cpus === 1 ? type : `${type}-${cpus}`,
      run: async () => {
        const name = `${type}-${cpus}`
        const path = await images.big(name, ENTRIES / 1000, { cpus, defines })
        const measured = measure(3, "stream.mjs", path, "big_map")
        images.drop(path)
        return [streamOf(name, cpus === 1 ? type : `${type} (${cpus} values an entry)`, measured)]
      }
    }))
  )
  const slotRows = SLOTS.map((type) => ({
    name: type,
    run: async () => [streamOf(type, type, measure(3, "stream.mjs", await images.slots(), type))]
  }))
  const microRows = Object.entries(MICRO).map(([name, [what, needsImage]]) => ({
    name,
    run: async () => {
      const { ns } = measure(3, "micro.mjs", name, ...(needsImage ? [await small()] : []))
      return [least(name, what, "ns", ns)]
    }
  }))

  return [
    {
      name: "index",
      run: async () => {
        const { bytes, ms } = measure(9, "btf-index.mjs", "/sys/kernel/btf/vmlinux")
        return [least("index", `cold index of vmlinux BTF (${(bytes / 1e6).toFixed(1)} MB) and 20 names`, "ms", ms, 20)]
      }
    },
    {
      name: "attach",
      run: async () => {
        const { ms, ...parts } = measure(7, "attach.mjs", await small(), "big_map")
        return [
          least("attach", "attach to a 512 MiB image, file to first typed entry", "ms", ms, 150),
          ...Object.entries(ATTACH).map(([part, what]) => least(`attach-${part}`, `  of it ${what}`, "ms", parts[part]))
        ]
      }
    },
    {
      name: "attach-command",
      run: async () => {
        const rows = []
        for (const version of ATTACH_KERNELS) {
          const image = await images.big(`small-${version}`, 1, { memoryMib: 512, kernel: `debian:${version}-cloud` })
          const { ms, start } = measure(9, "attach-command.mjs", image, "big_map")
          images.drop(image)
          const what = `ktstr dump, from its look at a 512 MiB image of ${version} to the first entry written`
          rows.push(
            least(`attach-command-${version}`, what, "ms", ms, 60),
            least(`attach-command-${version}-start`, "  before that, from Node's readiness on", "ms", start)
          )
        }
        return rows
      }
    },
    {
      name: "attach-memory",
      run: async () => {
        const { afterMB, beforeMB, ratio } = measure(1, "attach-memory.mjs")
        const what = `shared memory of a 3 GiB guest after an attach, ${afterMB.toFixed(0)} MB, ` +
          `against the ${beforeMB.toFixed(0)} MB that it used`
        return [least("attach-memory", what, "×", ratio, 1.1)]
      }
    },
    {
      name: "stream",
      run: async () => {
        const { entries, grownMB, perSecond } = await stream()
        return [
          most("stream", `${entries} typed entries (8 + 72 bytes) to NDJSON`, "entries/s", perSecond, 700_000),
          least("stream-memory", "memory for that, beyond the mapped image", "MB", grownMB, 100)
        ]
      }
    },
    {
      name: "stream-two",
      run: async () => {
        const one = ["stream.mjs", await images.big("million", ENTRIES / 1000), "big_map"]
        const { b, ratio } = measurePair(9, one, [...one, "two"])
        const what = `${b.entries} typed entries (8 + 72 bytes) to NDJSON, two cores`
        return [
          most("stream-two", what, "entries/s", b.perSecond),
          most("stream-two-ratio", "  against one core in turn", "×", ratio, 1.8),
          least("stream-two-memory", "memory for that, beyond the mapped image", "MB", b.grownMB, 100)
        ]
      }
    },
    ...typeRows,
    ...slotRows,
    {
      name: "list",
      run: async () => {
        const { maps, ms } = measure(7, "list.mjs", await images.many())
        return [least("list", `listing ${maps} maps, after the attach`, "ms", ms, 100)]
      }
    },
    {
      name: "sched",
      run: async () => {
        const { ms, threads } = measure(7, "sched.mjs", await images.threads())
        return [
          least("sched", `the scheduler's state of a guest with ${threads} threads, after the attach`, "ms", ms, 150)
        ]
      }
    },
    {
      name: "sched-show",
      run: async () => {
        const command = (...words) => [process.execPath, here("../dist/bin/ktstr.cjs"), ...words]
        const path = await small()
        const { a, b } = pair(15, command("dump", "--image", path), command("sched", "show", "--image", path))
        const what = `ktstr sched show, ${Math.round(b)} ms, beyond ktstr dump, ${Math.round(a)} ms`
        return [least("sched-show", what, "ms", b - a, 15)]
      }
    },
    {
      name: "help",
      run: async () => {
        // the version is the shortest answer of the whole command, which help does not load
        return [["--help", 2], ["--version", 4]].map(([word, limit]) => {
          const command = [process.execPath, here("../dist/bin/ktstr.cjs"), word]
          const { a, b, ratio } = pair(15, command, [process.execPath, "-e", "0"])
          const what = `ktstr ${word}, ${Math.round(a)} ms, against node -e 0, ${Math.round(b)} ms`
          return least("help", what, "×", ratio, limit)
        })
      }
    },
    {
      name: "cells",
      run: async () => {
        const words = ["list", "--kernel", "debian:7.3-cloud", "--seeds", "1000"]
        const { a } = pair(9, [process.execPath, here("../dist/bin/ktstr.cjs"), ...words], [
          process.execPath,
          "-e",
          "0"
        ])
        return [least("cells", "ktstr list of 1000 runs, whole", "ms", a, 500)]
      }
    },
    ...runRows(),
    ...microRows,
    {
      name: "live",
      run: async () => {
        const { a, b, ratio } = liveRatio((directory) => compileBig(directory), ENTRIES, scratch())
        const what = `${ENTRIES} live entries as NDJSON, ${(a / 1000).toFixed(2)} s, ` +
          `against bpftool map dump -j, ${(b / 1000).toFixed(2)} s`
        return [least("live", what, "×", ratio, 0.25)]
      }
    },
    {
      name: "freeze",
      run: async () =>
        (await freezeTimes()).flatMap(({ cpus, freezes, max, p50, p99 }) => [
          least(
            `freeze-${cpus}`,
            `${freezes} freezes of ${cpus} spinning vCPU${cpus === 1 ? "" : "s"}, p50 (p99 ${Math.round(p99)} µs, ` +
              `most ${Math.round(max)} µs)`,
            "µs",
            p50
          )
        ])
    },
    {
      name: "boot",
      run: async () =>
        (await bootRatios()).map(({ died, name, ours, qemu, ratio }) =>
          least(
            `boot ${name}`,
            `from the process's start to the init of Linux ${name}, ${ours.toFixed(1)} s, against QEMU, ${
              qemu.toFixed(1)
            } s` +
              (died.ours + died.qemu === 0
                ? ""
                : ` (${died.ours} of ours and ${died.qemu} of QEMU's died and were left out)`),
            "×",
            ratio,
            0.8
          )
        )
    }
  ]
}
