/* What the agent and the host say to each other: the plan that the initramfs carries, and the mailbox in guest memory.
 * src/harness/agent/{Plan,Mailbox,Records}.ts are the host's side; a test compares the sizes and offsets. All numbers are
 * little-endian. Version 1. */
#ifndef KTSTR_PROTOCOL_H
#define KTSTR_PROTOCOL_H
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef int32_t s32;

#define PROTOCOL_VERSION 1
#define PAGE 4096u

/* ---- the plan: /plan in the initramfs ---- */
#define PLAN_MAGIC "KTPLAN02"
#define PLAN_PATH "/plan"
#define NOTHING 0xffffffffu

struct plan_header {
	char magic[8];
	u32 size, crc; /* crc32 (IEEE) of the whole plan with this field 0 */
	u32 strings_at, strings_bytes; /* NUL-terminated texts, named by their offset from strings_at */
	u32 groups_at, groups;
	u32 workers_at, workers;
	u32 commands_at, commands;
	u32 ops_at, ops;
	u64 seed;
	u64 call_ns; /* a system call of the agent's that takes longer is taken for one that never returns */
};

struct plan_group {
	u32 path; /* below the work cgroup */
	u32 pad;
};

struct plan_worker {
	u32 type, group, comm, cpus; /* cpus: a list as in cpuset.cpus, or NOTHING */
	s32 nice;
	u32 policy, priority;
	u32 leader, size; /* the first worker of those that work together, and how many they are */
	u32 pad;
	u64 params[4];
};

struct plan_command {
	u32 arguments, count; /* `count` texts one behind the other */
	u32 ops; /* a scheduler's name in sysfs begins with this; NOTHING: a payload */
	u32 group;
};

enum {
	OP_CGROUP_ADD = 1, /* a: group */
	OP_CGROUP_REMOVE = 2, /* a: group */
	OP_CGROUP_WRITE = 3, /* a: group, b: file, c: value */
	OP_SPAWN = 4, /* a: first worker, b: count; ns: limit */
	OP_STOP = 5, /* a: first worker, b: count; ns: limit */
	OP_MOVE = 6, /* a: first worker, b: count, c: group */
	OP_AFFINITY = 7, /* a: first worker, b: count, c: CPU list */
	OP_NICE = 8, /* a: first worker, b: count, c: nice as s32 */
	OP_ATTACH = 9, /* a: command; ns: limit */
	OP_DETACH = 10, /* a: command; ns: limit */
	OP_HOLD = 11, /* ns: how long */
	OP_PHASE_BEGIN = 12, /* a: step */
	OP_PHASE_END = 13, /* a: step */
	OP_RUN = 14, /* a: command */
	OP_WAIT = 15, /* a: command; ns: limit */
	OP_KILL = 16, /* a: command; ns: limit */
	OP_POLICY = 17, /* a: first worker, b: count, c: policy, and from bit 8 on the priority */
	OP_CODES
};

struct plan_op {
	u16 code, step;
	u32 a, b, c;
	u64 ns;
};

/* ---- the mailbox: locked pages; the first is announced on ttyS1 as "ktstr mailbox PFN CRC", both hexadecimal ---- */
#define PAGE_MAGIC 0x4750544bu /* "KTPG" */
#define MAILBOX_MAGIC "KTSTRMB1"
#define LOG_PAGES 256u
#define MOST_WORKERS 512u
#define PAGE_HEAD 8u /* each page begins with PAGE_MAGIC and its index */

enum { STATE_STARTING, STATE_READY, STATE_DONE, STATE_STUCK };

struct mailbox_head {
	u32 page_magic, page_index;
	char magic[8];
	u32 version, pages, workers_at, workers, log_at, log_pages;
	u32 crc; /* of magic up to log_pages, then the directory */
	u32 state;
	u64 heartbeat; /* ns of the guest's monotonic clock */
	u32 log_bytes, lost; /* whole records in the log, and records that it had no room for */
	u32 op; /* the operation that is being done */
	u32 step; /* the phase that runs, counted from 1; 0 outside of any */
	u32 pad[12];
	u32 directory[(PAGE - 120) / 4]; /* page frame numbers */
};

#define BUCKETS 960u /* 32 an octave, from 64 ns to 64 s */

struct worker_page {
	u32 page_magic, page_index;
	u32 pid, state;
	u64 units;
	u64 last; /* when the last unit ended, ns */
	u64 gap_max, gap_at; /* the longest time between two units of this phase, and when it ended */
	u32 gap_cpu, migrations, cpu, phase;
	u32 word, turns; /* what workers of a group wait for */
	u64 cpus_used; /* by number, up to 63 */
	u64 events; /* in the histogram */
	u64 event_max;
	s32 setup_errno;
	u32 setup_step;
	u64 scratch[3];
	u32 buckets[BUCKETS]; /* from byte 128 on */
};

enum { WORKER_NEVER, WORKER_STARTING, WORKER_RUNNING, WORKER_ENDED };

/* ---- records in the log: a header, then the payload, filled up to 8 bytes ---- */
#define RECORD_MAGIC 0x3152544bu /* "KTR1" */

struct record_header {
	u32 magic;
	u16 kind, flags;
	u32 length, sequence;
	u64 ns;
	u32 crc; /* of the header with this field 0, and the payload */
	u32 pad;
};

enum {
	RECORD_HELLO = 1,
	RECORD_OP = 2,
	RECORD_PHASE = 3,
	RECORD_WORKER = 4,
	RECORD_WORKER_ENDED = 5,
	RECORD_SCHEDULER = 6,
	RECORD_LINE = 7,
	RECORD_COMMAND_ENDED = 8,
	RECORD_GROUP = 9,
	RECORD_REFUSED = 10,
	RECORD_DONE = 11
};

struct hello {
	u32 version, cpus, controllers, features;
	char release[64];
	u64 init_ns; /* when init began; the record is of when it was ready */
};
enum { HAS_CGROUP2 = 1, HAS_SCHED_EXT = 2, HAS_BPF_FS = 4 };
enum { CONTROLLER_CPU = 1, CONTROLLER_CPUSET = 2, CONTROLLER_MEMORY = 4, CONTROLLER_PIDS = 8 };

struct op_done {
	u32 op, code;
	s32 error;
	u32 subject; /* the worker, group or command that failed, or NOTHING */
	u32 state; /* of the subject's process that was waited for in vain: its letter in /proc/PID/stat; 0: it is not there */
	u32 others; /* workers that failed like the subject */
};

struct phase {
	u32 step, end;
};

struct worker_counters {
	u32 worker, step, end, cpu_known;
	u64 units, cpu_ns, gap_max, gap_at;
	u32 gap_cpu, migrations;
	u64 cpus_used, events, event_max, run_delay;
	u32 phase_seen, runs; /* how often it was given a CPU */
};

struct worker_ended {
	u32 worker;
	s32 status; /* as of wait(2) */
	s32 setup_errno;
	u32 setup_step;
};

enum {
	SCHEDULER_STARTED = 1,
	SCHEDULER_ATTACHED,
	SCHEDULER_DIED, /* before it attached */
	SCHEDULER_LATE,
	SCHEDULER_NO_SCHED_EXT,
	SCHEDULER_OTHER, /* another one is attached */
	SCHEDULER_DETACHED, /* asked to */
	SCHEDULER_GONE, /* the kernel no longer schedules by it, unasked */
	SCHEDULER_AT_END, /* how it stands when the plan is done */
	SCHEDULER_LEFT /* its process ended before, or as, it attached, and it is attached */
};

struct scheduler_state {
	u32 command, what;
	s32 status;
	u32 flags;
	char ops[128];
	u64 cpu_ns; /* of its process */
	u32 cpu_known, pad;
};
enum { SCX_ENABLED = 1, SCX_SWITCH_ALL = 2 }; /* sched_ext is enabled; it has the tasks of the ordinary classes too */

enum { LINE_KERNEL = 1, LINE_COMMAND = 2 };

struct line {
	u32 source, command;
	/* then the text */
};

struct command_ended {
	u32 command;
	s32 status;
};

struct group_usage {
	u32 group, step, end, known;
	u64 usage_usec;
};

struct refused {
	u32 offset, pad;
	/* then the reason */
};
#endif
