import * as FileSystem from "@effect/platform/FileSystem"
import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { listLinks } from "../../src/bpf/guest/links/Links.ts"
import { listPrograms } from "../../src/bpf/guest/programs/ProgramWalk.ts"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { parseCapture } from "../support/capture.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { needsScx, needsStockScx, scx, stockScx } from "../support/scx.ts"
import { comparePrograms, compareProgramsAndLinks, parse, type PrintedLink } from "./comparePrograms.ts"

const sources = new URL("../bpf-src/", import.meta.url).pathname

describe("every program and link of a frozen guest is what bpftool and its maker said inside it", () => {
  it.effect(
    "debian:6.12-cloud, 2 CPUs",
    () => compareProgramsAndLinks({ kernel: "debian:6.12-cloud", cpus: 2, kindsOfLinks: 19 }),
    300_000
  )
  it.effect(
    "debian:6.1-cloud, 1 CPU",
    () => compareProgramsAndLinks({ kernel: "debian:6.1-cloud", cpus: 1, kindsOfLinks: 15 }),
    300_000
  )
  describe("by the bpftool of 7.3's source", () => {
    beforeEach(needsStockScx)
    it.effect(
      "debian:7.3-cloud, 2 CPUs",
      () =>
        Effect.flatMap(
          stockScx,
          ({ bpftool }) => compareProgramsAndLinks({ kernel: "debian:7.3-cloud", cpus: 2, kindsOfLinks: 19, bpftool })
        ),
      300_000
    )
  })
})

describe("a scheduler's programs and its link", () => {
  beforeEach(needsScx)

  it.effect("say which operation they are, and which map is registered", () =>
    Effect.gen(function*() {
      const built = yield* scx
      const files = yield* FileSystem.FileSystem
      const consoleFile = `${yield* scratch}/console`
      const guest = new URL("../scx/guest.sh", import.meta.url).pathname
      const { kernel, maps } = yield* bootAndFreeze({
        kernel: built.key,
        cpus: 2,
        includes: ["/usr/sbin/bpftool", built.scheduler("scx_simple"), guest, `${sources}capture.sh`],
        script: `. /include-files/guest.sh
          sysctl -q -w kernel.bpf_stats_enabled=1
          start scx_simple >/dev/null
          mkdir -p /tmp/capture
          date +%s >/tmp/capture/now
          cat /proc/uptime >/tmp/capture/uptime
          bpftool link list -j >/tmp/capture/links.json
          sh /include-files/capture.sh`,
        consoleFile,
        timeout: "3 minutes"
      })
      const printed = parseCapture(yield* files.readFileString(consoleFile))
      const programs = yield* Effect.provideService(listPrograms, GuestKernel, kernel)
      const links = yield* Effect.provideService(listLinks, GuestKernel, kernel)
      assert.deepStrictEqual([...programs.problems, ...links.problems], [])
      comparePrograms(programs.items, printed)
      const operations = programs.items.filter(({ type }) => type === "struct_ops")
      assert.deepStrictEqual(
        operations.map(({ attachType, name, target }) => [attachType, target?.kind, target?.name, name]).toSorted(),
        ["dispatch", "enqueue", "exit", "init", "running", "select_cpu", "enable", "stopping"].toSorted()
          .map((member) => [null, "struct_ops", `sched_ext_ops.${member}`, `simple_${member}`])
      )
      assert.isAbove(Number(operations.find(({ name }) => name === "simple_enqueue")?.runs), 0)
      const [registered] = yield* maps.find("simple_ops")
      assert.deepStrictEqual(links.items.map(({ programId, target, type }) => [type, programId, target]), [
        ["struct_ops", null, { kind: "struct_ops", names: ["simple_ops"], id: registered.id, netns: null }]
      ])
      assert.deepStrictEqual(
        links.items.map(({ id }) => id),
        parse<ReadonlyArray<PrintedLink>>(printed.get("links.json")).map(({ id }) => id)
      )
    }).pipe(Effect.scoped, Effect.provide(HostLive)), 240_000)
})
