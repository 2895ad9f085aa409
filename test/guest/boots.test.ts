import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { join } from "node:path"
import { changes, sideOfReaders } from "../../src/bpf/report/SnapshotDiff.ts"
import { boot, freezeAndAttach, openImage, type Snapshot } from "../../src/Ktstr.ts"
import { saveImage } from "../../src/memory/SaveImage.ts"
import { HostLive, scratch } from "../support/guest.ts"

const KERNEL = "debian:6.12-cloud"

/** Makes maps of these names, in this order, each with one entry. */
const making = (maps: Readonly<Record<string, number>>): string =>
  Object.entries(maps).map(([name, value]) => `
    bpftool map create /sys/fs/bpf/${name} type array key 4 value 4 entries 1 name ${name}
    bpftool map update pinned /sys/fs/bpf/${name} key 0 0 0 0 value ${value} 0 0 0`).join("\n")

/** Without KASLR every boot of a kernel looks alike, but for what tells boots apart. */
const booted = (maps: Readonly<Record<string, number>>) =>
  boot({ kernel: KERNEL, memoryMib: 256, cmdline: "nokaslr", includes: ["/usr/sbin/bpftool"], script: making(maps) })

const side = ({ header, maps }: Snapshot) =>
  Effect.gen(function*() {
    const { items } = yield* maps.list
    return sideOfReaders(header, yield* Effect.forEach(items, maps.reader), (yield* maps.programs).items)
  })

describe("two boots of one kernel", () => {
  it.scopedLive("are told apart, from images too, and compared by names", () =>
    Effect.gen(function*() {
      const directory = yield* scratch
      const [first, second] = ["first.mem", "second.mem"].map((name) => join(directory, name))
      const firstBoot = yield* Effect.scoped(Effect.gen(function*() {
        const vm = yield* booted({ same: 1, changed: 2, gone: 3 })
        const looks = [
          yield* Effect.scoped(Effect.map(freezeAndAttach(vm, KERNEL), ({ header }) => header.kernel)),
          yield* Effect.scoped(Effect.gen(function*() {
            const { header, kernel } = yield* freezeAndAttach(vm, KERNEL)
            yield* saveImage(kernel.memory, first)
            return header.kernel
          }))
        ]
        assert.deepStrictEqual(looks[0], looks[1])
        return looks[0]
      }))
      assert.match(firstBoot.boot ?? "", /^[0-9a-f]{16}$/)
      yield* Effect.scoped(Effect.gen(function*() {
        const vm = yield* booted({ new: 9, changed: 7, same: 1 })
        const { kernel } = yield* freezeAndAttach(vm, KERNEL)
        yield* saveImage(kernel.memory, second)
      }))

      const [from, to] = yield* Effect.all([openImage(first), openImage(second)])
      assert.deepStrictEqual(from.header.kernel, firstBoot)
      assert.strictEqual(to.header.kernel.kaslrOffset, firstBoot.kaslrOffset)
      assert.notStrictEqual(to.header.kernel.boot, firstBoot.boot)
      const idOf = (name: string, { items }: Effect.Effect.Success<typeof to.maps.list>) =>
        items.find((map) => map.name === name)?.id
      const [before, after] = [yield* from.maps.list, yield* to.maps.list]
      assert.notStrictEqual(idOf("same", before), idOf("same", after))

      const found = [...changes(yield* side(from), yield* side(to))]
      const [problem, ...rest] = found
      assert.match("problem" in problem ? problem.problem.text : "", /^the two come from different boots \(/)
      assert.deepStrictEqual(
        rest.map((each) => "name" in each ? [each.change, each.name, each.id] : [each.change, each.problem.text])
          .toSorted(),
        [
          ["entryChanged", "changed", idOf("changed", after)],
          ["mapAdded", "new", idOf("new", after)],
          ["mapRemoved", "gone", idOf("gone", before)]
        ]
      )
    }).pipe(Effect.provide(HostLive)), 240_000)
})
