import { shellQuote } from "../../core/process/ShellQuote.ts"
import { type Share, shareName, shareTag } from "../spec/Share.ts"

/** Shell that defines `share TAG NAME OPTION`, which mounts a share, and says on the console if that fails. */
export const shareFunction = `share() {
  mkdir -p "/share/$2"
  mount -t virtiofs -o "$3" "$1" "/share/$2" && return
  echo "ktstr: the kernel did not mount its share $2; is virtiofs missing (CONFIG_VIRTIO_FS)?"
  return 1
}
`

/** Shell that mounts shares and goes on where all could be mounted: what follows it is the script. */
export const mountingShares = (shares: ReadonlyArray<Share>): string =>
  shares.map((share, index) =>
    `share ${shareTag(index)} ${shellQuote(shareName(share))} ${share.writable === true ? "rw" : "ro"} && `
  ).join("")
