/* Prints sizes and offsets of guest-agent/protocol.h as JSON, for Protocol.test.ts. */
#include "protocol.h"
#include <stddef.h>
#include <stdio.h>
int main(void)
{
	printf("{\"plan\":{\"header\":%zu,\"group\":%zu,\"worker\":%zu,\"command\":%zu,\"op\":%zu},",
	       sizeof(struct plan_header), sizeof(struct plan_group), sizeof(struct plan_worker), sizeof(struct plan_command),
	       sizeof(struct plan_op));
	printf("\"record\":{\"header\":%zu,\"hello\":%zu,\"op\":%zu,\"phase\":%zu,\"worker\":%zu,\"workerEnded\":%zu,"
	       "\"scheduler\":%zu,\"line\":%zu,\"commandEnded\":%zu,\"group\":%zu,\"refused\":%zu},",
	       sizeof(struct record_header), sizeof(struct hello), sizeof(struct op_done), sizeof(struct phase),
	       sizeof(struct worker_counters), sizeof(struct worker_ended), sizeof(struct scheduler_state), sizeof(struct line),
	       sizeof(struct command_ended), sizeof(struct group_usage), sizeof(struct refused));
	printf("\"kinds\":{\"hello\":%d,\"op\":%d,\"phase\":%d,\"worker\":%d,\"workerEnded\":%d,\"scheduler\":%d,\"line\":%d,"
	       "\"commandEnded\":%d,\"group\":%d,\"refused\":%d,\"done\":%d},",
	       RECORD_HELLO, RECORD_OP, RECORD_PHASE, RECORD_WORKER, RECORD_WORKER_ENDED, RECORD_SCHEDULER, RECORD_LINE,
	       RECORD_COMMAND_ENDED, RECORD_GROUP, RECORD_REFUSED, RECORD_DONE);
	printf("\"head\":{\"state\":%zu,\"heartbeat\":%zu,\"log\":%zu,\"lost\":%zu,\"directory\":%zu,\"bytes\":%zu},",
	       offsetof(struct mailbox_head, state), offsetof(struct mailbox_head, heartbeat), offsetof(struct mailbox_head, log_bytes),
	       offsetof(struct mailbox_head, lost), offsetof(struct mailbox_head, directory), sizeof(struct mailbox_head));
	printf("\"page\":{\"units\":%zu,\"events\":%zu,\"buckets\":%zu,\"bytes\":%zu},\"ops\":%d}\n",
	       offsetof(struct worker_page, units), offsetof(struct worker_page, events), offsetof(struct worker_page, buckets),
	       sizeof(struct worker_page), OP_CODES);
	return 0;
}
