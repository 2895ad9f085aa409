import * as FileSystem from "@effect/platform/FileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { listLinks } from "../../src/bpf/guest/links/Links.ts"
import { listPrograms } from "../../src/bpf/guest/programs/ProgramWalk.ts"
import type { Link } from "../../src/bpf/Link.ts"
import type { Program } from "../../src/bpf/Program.ts"
import { type Reason, unsupported } from "../../src/core/Reason.ts"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { parseCapture } from "../support/capture.ts"
import { compileBpf, HostLive, scratch } from "../support/guest.ts"
import { packLive } from "../support/liveInGuest.ts"

/** Of a program what both sources tell, and what does not change between the two looks. */
const lasting = (
  { attachType: _attachType, misses: _misses, runNanos: _runNanos, runs: _runs, ...program }: Program
) => ({
  ...program,
  target: program.target === null
    ? null
    // bpf(2) tells neither the member of a struct_ops, nor the id of a program
    : { ...program.target, name: program.target.name.replace(/^(tcp_congestion_ops)\..*/, "$1"), program: null }
})

/** Of a link what bpf(2) tells: no network namespace, no group of a tracepoint. */
const told = ({ target, ...link }: Link) => ({
  ...link,
  target: target === null ? null : {
    ...target,
    names: target.names.map((name) => target.kind === "tracepoint" ? name.replace(/^.*:/, "") : name),
    id: target.kind === "netfilter" ? null : target.id,
    netns: null
  }
})

interface Listed {
  readonly header: { readonly kernel: { readonly boot: string | null } }
  readonly programs: { readonly items: ReadonlyArray<Program>; readonly problems: ReadonlyArray<Reason> }
  readonly links: { readonly items: ReadonlyArray<Link>; readonly problems: ReadonlyArray<Reason> }
  readonly details: ReadonlyArray<unknown>
}

describe("a guest's programs and links", () => {
  it.scopedLive("are the same from its memory and, inside it, by bpf(2)", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const directory = yield* scratch
      const objects = yield* compileBpf(directory, "programs", "congestion")
      const attach = `${directory}/attach`
      const sources = new URL("../bpf-src/", import.meta.url).pathname
      yield* Effect.promise(() => promisify(execFile)("gcc", ["-static", "-O1", `${sources}attach.c`, "-o", attach]))
      const consoleFile = `${directory}/console`
      const { kernel, maps } = yield* bootAndFreeze({
        kernel: "debian:6.12-cloud",
        cpus: 2,
        memoryMib: 1536,
        includes: [
          "/usr/sbin/bpftool",
          process.execPath,
          ...objects,
          attach,
          yield* packLive(new URL("listLive.ts", import.meta.url), directory),
          `${sources}programs-fill.sh`,
          `${sources}capture.sh`
        ],
        script: `set -e
        sh /include-files/programs-fill.sh
        bpftool struct_ops register /include-files/congestion.bpf.o >/dev/null
        mkdir /tmp/live
        tar -x -f /include-files/live.tar -C /tmp/live
        node /tmp/live/live.mjs >/tmp/capture/live.json
        sh /include-files/capture.sh`,
        consoleFile,
        timeout: "5 minutes"
      })
      const live: Listed = JSON.parse(parseCapture(yield* files.readFileString(consoleFile)).get("live.json")!)
      const programs = yield* Effect.provideService(listPrograms, GuestKernel, kernel)
      const links = yield* Effect.provideService(listLinks, GuestKernel, kernel)

      assert.deepStrictEqual(live.programs.problems, [])
      const theirs = programs.items.map((each) => lasting({ ...each }))
      const attached = theirs.findIndex(({ name }) => name === "on_subprogram")
      theirs[attached] = {
        ...theirs[attached],
        target: null,
        problem: unsupported("what it attaches to: a function of another program, which its link tells")
      }
      assert.deepStrictEqual(live.programs.items.map(lasting), theirs)
      assert.isAbove(programs.items.length, 20)
      const [xdp] = live.programs.items.filter(({ name }) => name === "xdp_other")
      assert.deepInclude(xdp, { runs: 20, misses: 0 })
      // the brief lists have whole names too
      assert.deepStrictEqual(
        (yield* maps.programs).items.map(({ name }) => name),
        programs.items.map(({ name }) => name)
      )

      assert.deepStrictEqual(live.links.problems, [
        unsupported("what is attached without a link is not listed: bpf(2) has no list of it")
      ])
      const withIds = links.items.filter(({ id }) => id !== null)
      assert.deepStrictEqual(live.links.items.map(told), withIds.map((each) => told({ ...each })))
      assert.isAbove(withIds.length, 18)

      const structs = (yield* maps.list).items.filter(({ type }) => type === "struct_ops")
      const details = yield* Effect.forEach(structs, (info) => Effect.map(maps.reader(info), (each) => each.details))
      assert.deepStrictEqual(live.details, details)
      assert.lengthOf(details, 1)
      assert.match(live.header.kernel.boot ?? "", /^[0-9a-f-]{36}$/)
    }).pipe(Effect.provide(HostLive)), 400_000)
})
