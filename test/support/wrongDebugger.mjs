/**
 * Stands between us and the gdb server of a real QEMU, and is wrong in the way of its argument: `wrongDebugger.mjs WAY`.
 * Descriptor 3 is the connection to us, 4 the one to QEMU. What its way says nothing of passes as it is.
 */
import { Socket } from "node:net"

const [us, qemu] = [3, 4].map((fd) => new Socket({ fd, readable: true, writable: true }))
const end = () => process.exit(0)
for (const socket of [us, qemu]) socket.on("error", end).on("close", end)

const packet = (text) => `$${text}#${(Buffer.from(text).reduce((sum, byte) => sum + byte, 0) & 0xff).toString(16)}`
/** Write the text for ever, as fast as it is read. */
const flood = (text) => us.write(text, () => setImmediate(flood, text))

/** What is done with bytes of ours; true where QEMU does not get them. */
const asked = {
  "says nothing": () => true,
  "hangs up": end,
  "speaks garbage": () => us.write("\x1b]0;PWNED\x07 what?"),
  "sends receipts only": () => us.write("+"),
  "refuses with control characters": () => us.write(`+${packet("E\x1b[31m99")}`),
  "answers with a wrong checksum": () => us.write("+$OK#00"),
  "answers without an end": () => flood("$x".repeat(2 ** 15)) || true,
  "sends receipts without an end": () => flood("+".repeat(2 ** 16)) || true,
  "does not let the guest go on": (text) => text.startsWith("$c#") && us.write("+")
}
/** The same for those of QEMU that say of a guest which ran that it stands. */
const stands = {
  "hangs up when the guest stands": end,
  "says that the guest has ended": () => us.write(packet("W00")),
  "says that the guest stands in garbage": () => us.write("$T05\x1b[31m#zz"),
  "does not say that the guest stands": () => true,
  "says a thousand times that the guest stands": (bytes) => {
    for (let count = 0; count < 1000; count++) us.write(bytes)
    return true
  }
}

const [way] = process.argv.slice(2)
if (![asked, stands, { "is good": true }].some((ways) => Object.hasOwn(ways, way))) throw new Error(`no way: ${way}`)
us.on("data", (bytes) => {
  if (!asked[way]?.(bytes.toString("latin1"))) qemu.write(bytes)
})
qemu.on("data", (bytes) => {
  const isStop = /\$T[0-9a-f]{2}/.test(bytes.toString("latin1"))
  if (!(isStop && stands[way]?.(bytes))) us.write(bytes)
})
