import type * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as Effect from "effect/Effect"
import { FetchFailed, type HostLacks } from "../../Errors.ts"
import { runToEnd } from "../../process/Subprocess.ts"
import { stage } from "../../Progress.ts"

const GIT_MEND = "install it: `apt-get install git`"
const git = (...args: ReadonlyArray<string>) => runToEnd("git", ["--no-optional-locks", ...args], GIT_MEND)

const firstLine = (text: string): string => text.trim().split("\n", 1)[0]

/** The commit of a directory whose files are all as git has them, or why they are not. */
export const cleanCommit = (
  directory: string
): Effect.Effect<{ readonly commit: string } | { readonly why: string }, HostLacks, CommandExecutor.CommandExecutor> =>
  Effect.gen(function*() {
    const head = yield* git("-C", directory, "rev-parse", "--verify", "HEAD^{commit}")
    if (head.code !== 0) return { why: `git has no commit of it (${firstLine(head.stderr)})` }
    // a repository above it may only have it in its .gitignore
    const tracked = yield* git("-C", directory, "ls-files", "--error-unmatch", "Makefile")
    if (tracked.code !== 0) return { why: "git does not track its Makefile" }
    const status = yield* git("-C", directory, "status", "--porcelain", "-z", "--untracked-files=normal", "--", ".")
    if (status.code !== 0) return { why: `git cannot tell its changes (${firstLine(status.stderr)})` }
    const changed = status.stdout.split("\0", 1)[0]
    return changed === ""
      ? { commit: head.stdout.trim() }
      : { why: `it has uncommitted changes (${changed.slice(3)})` }
  })

/**
 * Copy a directory of a repository as it is now: what git tracks, with the changes, and new files that it does not ignore.
 * @returns why not, or undefined
 */
export const copyTree = (
  directory: string,
  target: string
): Effect.Effect<string | undefined, HostLacks, CommandExecutor.CommandExecutor> =>
  Effect.gen(function*() {
    // git lists a file that was deleted too, as it tracks it; a file may be in the list twice, in a merge
    const list = "git --no-optional-locks -C \"$0\" ls-files -z --deduplicate"
    const script =
      `set -e; git -C "$0" rev-parse --git-dir > "$1.git"; mkdir "$1"; ${list} --deleted | sort -z > "$1.deleted"; ` +
      `${list} --cached --others --exclude-standard | sort -z | comm -z -23 - "$1.deleted" > "$1.files"; ` +
      "tar -C \"$0\" --null --verbatim-files-from --no-recursion -T \"$1.files\" -cf - | tar -C \"$1\" -xf -"
    const { code, stderr } = yield* runToEnd("sh", ["-c", script, directory, target], "run a POSIX system")
    return code === 0 ? undefined : firstLine(stderr)
  })

/** A name that a remote has for a commit. */
interface RemoteCommit {
  readonly name: string
  readonly commit: string
}

/**
 * The commit that a ref names in a repository: a branch, a tag (not the tag object), `HEAD`, `refs/…` or a whole commit
 * id.
 */
export const remoteCommit = Effect.fn("GitRepository.remoteCommit")(
  function*(
    url: string,
    ref: string
  ): Effect.fn.Return<RemoteCommit, FetchFailed | HostLacks, CommandExecutor.CommandExecutor> {
    const failed = (why: string, hint: string) =>
      new FetchFailed({ step: "fetch", subject: `git repository ${url}`, why, hint })
    const hint = "give a branch, a tag, or a commit id with all of its 40 digits"
    // git check-ref-format(1): what is left out here has a meaning in a refspec or a pattern
    if (!/^[^-\s:^~*?[\\][^\s:^~*?[\\]*$/.test(ref)) return yield* failed(`${JSON.stringify(ref)} is not a ref`, hint)
    const listed = yield* stage(`ask ${url}`, "GitRepository.listRemote", { url, ref })(
      git("ls-remote", "--", url, ref, `${ref}^{}`)
    )
    if (listed.code !== 0) return yield* failed(firstLine(listed.stderr), "check the URL")
    const commits = new Map(
      listed.stdout.split("\n").map((line) => {
        const [commit, name] = line.split("\t")
        return [name, commit]
      })
    )
    // gitrevisions(7): the order in which git itself looks a name up
    for (const name of [ref, `refs/${ref}`, `refs/tags/${ref}`, `refs/heads/${ref}`]) {
      const commit = commits.get(`${name}^{}`) ?? commits.get(name)
      if (commit !== undefined) return { name, commit }
    }
    if (/^[0-9a-f]{40}$/.test(ref)) return { name: ref, commit: ref }
    return yield* failed(`it has no branch or tag ${ref}`, hint)
  }
)

/**
 * Put the files of a remote's commit into `directory`, without its history.
 * @param name as `remoteCommit` gives it
 * @returns the commit, which is another one if the branch has moved since
 */
export const checkOut = Effect.fn("GitRepository.checkOut")(
  function*(
    url: string,
    name: string,
    directory: string
  ): Effect.fn.Return<string, FetchFailed | HostLacks, CommandExecutor.CommandExecutor> {
    const step = (...args: ReadonlyArray<string>) =>
      Effect.filterOrElse(
        git(...args),
        ({ code }) => code === 0,
        ({ stderr }) =>
          new FetchFailed({
            step: "fetch",
            subject: `git repository ${url}`,
            why: firstLine(stderr),
            hint: "check the URL, the network and the disk"
          })
      )
    // no templates: a user's hooks have no business here
    yield* step("init", "--quiet", "--template=", directory)
    yield* stage(`fetch ${name} of ${url}`, "GitRepository.fetch", { url })(
      step("-C", directory, "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, name)
    )
    yield* stage("check out", "GitRepository.checkOut")(
      step("-C", directory, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    )
    return (yield* step("-C", directory, "rev-parse", "--verify", "HEAD^{commit}")).stdout.trim()
  }
)
