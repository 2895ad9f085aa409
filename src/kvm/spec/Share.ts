import { basename, resolve } from "node:path"

/**
 * A folder of the host that the guest sees as `/share/NAME`, by the folder's own name. File systems that are mounted below it
 * are not part of it. The guest may read all that this process may, and with `writable` change it too.
 *
 * @since 0.1.0
 * @category models
 */
export interface Share {
  readonly path: string
  readonly writable?: boolean | undefined
}

/** The folder's name in the guest. */
export const shareName = ({ path }: Pick<Share, "path">): string => basename(resolve(path)) || "root"

/** The name by which the guest's kernel knows the share of that index. */
export const shareTag = (index: number): string => `ktstr-share${index}`
