import { assert, it } from "@effect/vitest"
import { scriptLines } from "../../../src/kvm/guest/ScriptLines.ts"

it("scriptLines puts a line together that the kernel spoke into", () => {
  const lines = [
    "[    1.990496] Run /init as init process",
    "on[    2.376118] tsc: Refined TSC clocksource calibration: 2096.022 MHz",
    "[    2.384046] clocksource: Switched to clocksource tsc",
    "e",
    "",
    "two [3] of 3.5",
    "ktstr: the script ended with status 7",
    "[   12.000001] the last one"
  ]
  assert.deepStrictEqual(scriptLines(lines), ["one", "two [3] of 3.5"])
})
