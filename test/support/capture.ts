import { gunzipSync } from "node:zlib"

const BEGIN = "==== capture begins"
const END = "==== capture ends"

/**
 * The files that test/bpf-src/capture.sh printed, by name. Throws when the console does not hold a whole capture.
 * @param console what the guest printed: the capture may stand anywhere in it, lines may end in CR LF
 */
export const parseCapture = (console: string): ReadonlyMap<string, string> => {
  const begin = console.indexOf(BEGIN)
  const end = console.indexOf(END, begin)
  if (begin < 0 || end < 0) throw new Error("no whole capture on the guest's console")
  return untar(gunzipSync(Buffer.from(console.slice(begin + BEGIN.length, end), "base64")))
}

/** The regular files of a tar archive with short names. */
const untar = (archive: Buffer): ReadonlyMap<string, string> => {
  const files = new Map<string, string>()
  for (let at = 0; at + 512 <= archive.length && archive[at] !== 0;) {
    const field = (offset: number, length: number): string =>
      archive.toString("latin1", at + offset, at + offset + length).replace(/\0.*$/s, "")
    const size = Number.parseInt(field(124, 12), 8)
    if (field(156, 1) === "0") {
      files.set(field(0, 100).replace(/^\.\//, ""), archive.toString("utf8", at + 512, at + 512 + size))
    }
    at += 512 + Math.ceil(size / 512) * 512
  }
  return files
}

/** Shell for the start of a guest's script, for `bootSeconds`: it leaves for capture.sh how long the kernel has run. */
export const SAY_BOOTED = "mkdir -p /tmp/capture && cat /proc/uptime >/tmp/capture/booted"

/** The seconds, by the guest's clock, that the kernel took until its script ran. */
export const bootSeconds = (captured: ReadonlyMap<string, string>): number =>
  Number.parseFloat(captured.get("booted") ?? "")
