import type { Attachment } from "./Link.ts"
import type { Count } from "./Program.ts"

/** The facts about a link beyond those that every link has. A null target: it was detached. */
export interface Attached {
  readonly target: Attachment | null
  readonly attachType?: string
}

/** include/uapi/linux/netfilter.h `NFPROTO_*`, `enum nf_inet_hooks`, v6.12 */
const PROTOCOLS = new Map([[2, "ipv4"], [10, "ipv6"]])
const HOOKS = ["prerouting", "input", "forward", "output", "postrouting"]

/** `ipv4 input priority -128` */
export const hookName = (protocol: number, hook: number, priority: number): string =>
  `${PROTOCOLS.get(protocol) ?? `protocol ${protocol}`} ${HOOKS[hook] ?? `hook ${hook}`} priority ${priority}`

export const attachment = (kind: Attachment["kind"], name: string, id: Count | null = null): Attachment => ({
  kind,
  names: [name],
  id,
  netns: null
})
