import * as FileSystem from "@effect/platform/FileSystem"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { listLinks } from "../../src/bpf/guest/links/Links.ts"
import { listPrograms } from "../../src/bpf/guest/programs/ProgramWalk.ts"
import type { Attachment, Link } from "../../src/bpf/Link.ts"
import type { Program } from "../../src/bpf/Program.ts"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { parseCapture } from "../support/capture.ts"
import { compileAttach, compileBpf, type GuestArch, HostLive, scratch } from "../support/guest.ts"

const sources = new URL("../bpf-src/", import.meta.url).pathname

/** What bpftool says of a program in `prog list -j`. */
interface Printed {
  readonly id: number
  readonly type: string | number
  readonly name?: string
  readonly tag: string
  readonly run_time_ns?: number
  readonly run_cnt?: number
  readonly recursion_misses?: number
  readonly loaded_at: number
  readonly uid: number
  readonly bytes_xlated: number
  readonly bytes_jited: number
  readonly map_ids?: ReadonlyArray<number>
  readonly btf_id?: number
}

export const parse = <A>(text: string | undefined): A => JSON.parse(text!)

export const comparePrograms = (ours: ReadonlyArray<Program>, printed: ReadonlyMap<string, string>, counts = true) => {
  const theirs = parse<ReadonlyArray<Printed>>(printed.get("progs.json"))
  assert.deepStrictEqual(
    ours.map(({ btfId, id, instructions, jitedBytes, mapIds, name, problem, tag, type, uid }) => ({
      id,
      name,
      type,
      tag,
      uid,
      bytes: instructions * 8,
      jitedBytes,
      mapIds: mapIds?.toSorted((a, b) => a - b),
      btfId,
      problem
    })),
    theirs.map((program) => ({
      id: program.id,
      name: program.name ?? "",
      // bpftool 7.1 is older than BPF_PROG_TYPE_NETFILTER, 32
      type: program.type === 32 ? "netfilter" : String(program.type),
      tag: program.tag,
      uid: program.uid,
      bytes: program.bytes_xlated,
      jitedBytes: program.bytes_jited,
      mapIds: [...program.map_ids ?? []].sort((a, b) => a - b),
      btfId: program.btf_id ?? null,
      problem: null
    }))
  )
  const seconds = Number(printed.get("now")) - Number.parseFloat(printed.get("uptime")!)
  for (const program of ours) {
    const their = theirs.find(({ id }) => id === program.id)!
    assert.approximately(Number(program.loadedAt) / 1e9, their.loaded_at - seconds, 3, `program ${program.id}: loaded`)
    // Programs in the way of every process ran on after bpftool had looked.
    const quiet = counts && (program.type === "xdp" || program.type === "sched_cls")
    if (!quiet) continue
    assert.strictEqual(program.runs, their.run_cnt ?? 0, program.name)
    assert.strictEqual(program.runNanos, their.run_time_ns ?? 0, program.name)
    assert.strictEqual(program.misses, their.recursion_misses ?? 0, program.name)
  }
}

/** Of the programs of programs.bpf.c and attach.c, by name: what each is for. */
const TARGETS: Readonly<Record<string, readonly [string | null, string | null]>> = {
  classifier_with_a_name_that_the_kernel_cuts: [null, null],
  xdp_all: ["xdp", null],
  egress: ["cgroup_inet_egress", null],
  connect4: ["cgroup_inet4_connect", null],
  lookup: ["sk_lookup", null],
  probe: [null, null],
  raw_rename: [null, null],
  typed_rename: ["trace_raw_tp", "tracepoint task_rename"],
  entry: ["trace_fentry", "function bpf_fentry_test1"],
  exit_of_test: ["trace_fexit", "function bpf_fentry_test1"],
  mounting: ["lsm_mac", "function bpf_lsm_sb_mount"],
  each_task: ["trace_iter", "iterator task"],
  on_subprogram: ["trace_fentry", "function a_subprogram"]
}

/** What attach.c attached to what, by the names that it prints. */
const ATTACHED: Readonly<
  Record<
    string,
    {
      readonly type: string
      readonly attachType?: string
      readonly kind: Attachment["kind"]
      readonly names: ReadonlyArray<string>
    }
  >
> = {
  cgroup: { type: "cgroup", attachType: "cgroup_inet4_connect", kind: "cgroup", names: ["/outer/inner"] },
  iter: { type: "iter", kind: "iterator", names: ["task"] },
  raw_tracepoint: { type: "raw_tracepoint", kind: "tracepoint", names: ["task_rename"] },
  // The kernel's own: a raw tracepoint, whatever the program's type.
  tp_btf: { type: "raw_tracepoint", kind: "tracepoint", names: ["task_rename"] },
  fentry: { type: "tracing", attachType: "trace_fentry", kind: "function", names: ["bpf_fentry_test1"] },
  fexit: { type: "tracing", attachType: "trace_fexit", kind: "function", names: ["bpf_fentry_test1"] },
  lsm: { type: "tracing", attachType: "lsm_mac", kind: "function", names: ["bpf_lsm_sb_mount"] },
  fentry_of_program: { type: "tracing", attachType: "trace_fentry", kind: "function", names: ["a_subprogram"] },
  kprobe: { type: "perf_event", kind: "kprobe", names: ["__x64_sys_sethostname+0x0"] },
  kretprobe: { type: "perf_event", kind: "kretprobe", names: ["__x64_sys_sethostname+0x0"] },
  uprobe: { type: "perf_event", kind: "uprobe", names: ["/bin/busybox+0x1234"] },
  tracepoint: { type: "perf_event", kind: "tracepoint", names: ["syscalls:sys_enter_sethostname"] },
  software_event: { type: "perf_event", kind: "perf_event", names: ["software:cpu_migrations"] },
  kprobe_multi: {
    type: "kprobe_multi",
    kind: "functions",
    names: ["__x64_sys_setdomainname+0x0", "__x64_sys_sethostname+0x0"] // the kernel sorts them by address
  },
  uprobe_multi: { type: "uprobe_multi", kind: "uprobes", names: ["/bin/busybox+0x1000", "/bin/busybox+0x1010"] },
  tcx: { type: "tcx", attachType: "tcx_ingress", kind: "netdev", names: ["lo"] },
  netfilter: { type: "netfilter", kind: "netfilter", names: ["ipv4 input priority -7"] },
  netns: { type: "netns", attachType: "sk_lookup", kind: "netns", names: ["net:[4026532113]"] },
  xdp: { type: "xdp", kind: "netdev", names: ["lo"] }
}

/** Names of the functions of system calls differ. */
const namesOn = (arch: GuestArch, names: ReadonlyArray<string>) =>
  arch === "x86-64" ? names : names.map((name) => name.replace("__x64_sys_", "__arm64_sys_"))

/** What bpftool says of a link in `link list -j`; it knows the types up to 9 by name. */
export interface PrintedLink {
  readonly id: number
  readonly type: string | number
  readonly prog_id: number
  readonly cgroup_id?: number
  readonly netns_ino?: number
  readonly attach_type?: string
  readonly target_name?: string
  readonly tp_name?: string
}

const compareLinks = (
  ours: ReadonlyArray<Link>,
  printed: ReadonlyMap<string, string>,
  least: number,
  arch: GuestArch
) => {
  const made = parse<Readonly<Record<string, number | string | null>>>(printed.get("links-made.json"))
  const theirs = parse<ReadonlyArray<PrintedLink>>(printed.get("links.json"))
  const links = ours.filter(({ id }) => id !== null)
  assert.deepStrictEqual(
    links.map(({ id, programId }) => ({ id, programId })),
    theirs.map(({ id, prog_id }) => ({ id, programId: prog_id }))
  )
  for (const [index, their] of theirs.entries()) {
    const { attachType, target, type } = links[index]
    if (typeof their.type === "string") assert.strictEqual(type, their.type)
    if (their.attach_type !== undefined) assert.strictEqual(attachType, their.attach_type)
    if (their.cgroup_id !== undefined) assert.strictEqual(target?.id, their.cgroup_id)
    if (their.netns_ino !== undefined) assert.deepStrictEqual(target?.names, [`net:[${their.netns_ino}]`])
    const name = their.target_name ?? their.tp_name
    if (name !== undefined) assert.deepStrictEqual(target?.names, [name])
  }
  let compared = 0
  for (const [name, { attachType = null, kind, names, type }] of Object.entries(ATTACHED)) {
    const id = made[name]
    if (typeof id !== "number") continue // this kernel has no such link
    const link = links.find((each) => each.id === id)!
    const netns = theirs.find(({ netns_ino }) => netns_ino !== undefined)?.netns_ino
    assert.deepStrictEqual(
      [link.type, link.attachType, link.target?.kind, link.target?.names, link.problem],
      [type, attachType, kind, kind === "netns" ? [`net:[${netns}]`] : namesOn(arch, names), null],
      name
    )
    if (name === "xdp") assert.deepStrictEqual([link.target?.id, link.target?.netns], [1, netns])
    compared++
  }
  assert.isAtLeast(compared, least, JSON.stringify(made))
  const old = ours.filter(({ id }) => id === null)
  assert.deepStrictEqual(
    old.map(({ attachType, problem, programName, target, type }) => [
      type,
      attachType,
      programName,
      target?.kind,
      target?.names.join(),
      problem
    ]),
    [
      ["cgroup", "cgroup_inet_egress", "egress", "cgroup", "/outer", null],
      ["xdp", null, "xdp_other", "netdev", "lo", null],
      ...(made["tcx_egress"] === null ? [["tcx", "tcx_egress", "linkless", "netdev", "lo", null]] : [])
    ]
  )
  const cgroups = parse<
    ReadonlyArray<{ readonly cgroup: string; readonly programs: ReadonlyArray<{ readonly id: number }> }>
  >(
    printed.get("cgroups.json")
  )
  assert.deepStrictEqual(
    ours.filter(({ type }) => type === "cgroup")
      .map(({ programId, target }) => `/sys/fs/cgroup${target?.names.join()} ${programId}`).toSorted(),
    cgroups.flatMap(({ cgroup, programs }) => programs.map(({ id }) => `${cgroup} ${id}`)).toSorted()
  )
}

/**
 * Boot a guest, load programs, attach them in every way that its kernel has, let bpftool print them inside, freeze it and
 * compare. At least `kindsOfLinks` of the ways must be there. Gives the number of programs and of links that were equal.
 */
export const compareProgramsAndLinks = (
  { arch = "x86-64", bpftool = "/usr/sbin/bpftool", cpus, kernel, kindsOfLinks }: {
    readonly kernel: string
    readonly cpus: number
    readonly kindsOfLinks: number
    readonly bpftool?: string
    readonly arch?: GuestArch
  }
) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const directory = yield* scratch
    const objects = yield* compileBpf(directory, "programs")
    const consoleFile = `${directory}/console`
    const snapshot = yield* bootAndFreeze({
      kernel,
      cpus,
      includes: [
        bpftool,
        ...objects,
        yield* compileAttach(directory, arch),
        `${sources}programs-fill.sh`,
        `${sources}capture.sh`
      ],
      script: "sh /include-files/programs-fill.sh && sh /include-files/capture.sh",
      consoleFile,
      timeout: "4 minutes"
    })
    const printed = parseCapture(yield* files.readFileString(consoleFile))
    const programs = yield* Effect.provideService(listPrograms, GuestKernel, snapshot.kernel)
    assert.deepStrictEqual(programs.problems, [])
    comparePrograms(programs.items, printed)
    for (const [name, [attachType, target]] of Object.entries(TARGETS)) {
      const found = programs.items.find((program) => program.name === name)!
      assert.strictEqual(found.attachType, attachType, name)
      assert.strictEqual(found.target === null ? null : `${found.target.kind} ${found.target.name}`, target, name)
    }
    const named = (name: string) => programs.items.find((program) => program.name === name)!
    assert.strictEqual(named("classifier_with_a_name_that_the_kernel_cuts").runs, 1000)
    assert.strictEqual(named("xdp_other").runs, 10 * cpus)
    assert.isAbove(Number(named("fifteen_letters").verifiedInstructions), 1)
    const unattached = named("not_attached")
    assert.deepStrictEqual(unattached.target, {
      kind: "function",
      name: "a_subprogram",
      module: null,
      program: named("classifier_with_a_name_that_the_kernel_cuts").id
    })
    const links = yield* Effect.provideService(listLinks, GuestKernel, snapshot.kernel)
    assert.deepStrictEqual(links.problems, [])
    compareLinks(links.items, printed, kindsOfLinks, arch)
    return { programs: programs.items.length, links: links.items.length }
  }).pipe(Effect.scoped, Effect.provide(HostLive))
