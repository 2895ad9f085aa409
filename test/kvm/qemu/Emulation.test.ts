import { assert, describe, it } from "@effect/vitest"
import { emulationParameters, isSlicersWarning } from "../../../src/kvm/qemu/Emulation.ts"

describe("QEMU's parameters of an emulation", () => {
  it("are one thread for turns, and one a CPU for threads", () => {
    assert.deepStrictEqual(emulationParameters("turns", 2), ["-accel", "tcg,thread=single"])
    assert.deepStrictEqual(emulationParameters("threads", 2), ["-accel", "tcg,thread=multi"])
  })

  it("count instructions for an exact guest, by a seed, with turns that end", () => {
    const words = emulationParameters({ seed: 7, shift: 2, sliceMicros: 100 }, 2).join(" ")
    assert.match(words, /-accel tcg,thread=single -seed 7 -icount shift=2,sleep=off -rtc base=\S+,clock=vm/)
    assert.match(words, /filter-buffer,id=slicer,netdev=slice,interval=100$/)
  })

  it("leave the turns to QEMU where the slice is 0: a QEMU before 8.1 would starve a CPU", () => {
    assert.notMatch(emulationParameters({ seed: 7, shift: 1, sliceMicros: 0 }, 2).join(" "), /filter-buffer/)
  })

  it("let the only CPU run on: there is nobody to take turns with", () => {
    assert.notMatch(emulationParameters({ seed: 7, shift: 2, sliceMicros: 100 }, 1).join(" "), /filter-buffer/)
  })

  it("know what QEMU 10.0.2 says of the slicer's port", () => {
    assert.isTrue(isSlicersWarning("qemu-system-x86_64: warning: hub port slice has no peer"))
    assert.isTrue(isSlicersWarning("qemu-system-x86_64: warning: netdev slice has no peer"))
    assert.isFalse(isSlicersWarning("qemu-system-x86_64: Could not open '/nowhere': No such file"))
  })
})
