/* What the agent's files share. */
#ifndef KTSTR_AGENT_H
#define KTSTR_AGENT_H
#include "protocol.h"
#include <stddef.h>

/* plan.c */
extern const unsigned char *plan;
extern const struct plan_header *head;
const char *plan_load(u32 *offset); /* a reason when the plan is refused */
const char *text_at(u32 offset);
const struct plan_worker *worker_at(u32 index);
const struct plan_group *group_at(u32 index);
const struct plan_command *command_at(u32 index);
const struct plan_op *op_at(u32 index);

/* mailbox.c */
extern struct mailbox_head *mailbox;
void mailbox_make(u32 workers);
struct worker_page *worker_page(u32 worker);
void put_record(u16 kind, const void *payload, u32 length, const void *more, u32 more_length);
u32 crc32_of(u32 crc, const void *bytes, size_t length);
u64 now_ns(void);

/* work.c */
struct pair { int in[2], out[2]; }; /* pipes of two workers that work together */
void work_forever(u32 worker, const struct plan_worker *spec, const struct pair *pair) __attribute__((noreturn));
int needs_pipes(const struct plan_worker *spec);
u32 work_types(void);

/* workers.c */
void workers_make(void);
int worker_op(const struct plan_op *op, struct op_done *done);
int worker_reaped(s32 pid, s32 status); /* 1 when it was one */
u32 task_state(s32 pid);
void workers_report(u32 step, u32 end);
void workers_account(void);
int set_affinity(s32 pid, const char *list);
int cpu_time(s32 pid, u64 *ns);
u32 cpus_online(void);

/* groups.c */
u32 groups_mount(void);
int group_op(const struct plan_op *op, u32 *subject);
int group_join(u32 group, s32 pid);
void groups_report(u32 step, u32 end);
int write_file(const char *path, const char *text);
int read_file(const char *path, char *into, size_t size);

/* commands.c */
int command_op(const struct plan_op *op, struct op_done *done);
int command_reaped(s32 pid, s32 status);
void commands_look(void); /* at their output, and at sched_ext */
void commands_end(void);

/* agent.c */
void attend_until(u64 deadline, int (*over)(void *), void *about); /* does all that is due; ends early when `over` */
void die(const char *why) __attribute__((noreturn));
#endif
