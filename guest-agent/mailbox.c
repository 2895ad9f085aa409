/* The mailbox: pages that the host finds by their frame numbers and reads while the guest runs, hangs or is dead. */
#define _GNU_SOURCE
#include "agent.h"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <stdio.h>

struct mailbox_head *mailbox;
static u32 sequence;

u64 now_ns(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return (u64)at.tv_sec * 1000000000u + (u64)at.tv_nsec;
}

u32 crc32_of(u32 crc, const void *bytes, size_t length)
{
	static u32 table[256];
	const unsigned char *at = bytes;
	if (table[1] == 0) {
		for (u32 n = 0; n < 256; n++) {
			u32 c = n;
			for (int k = 0; k < 8; k++)
				c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
			table[n] = c;
		}
	}
	crc = ~crc;
	while (length--)
		crc = table[(crc ^ *at++) & 255] ^ (crc >> 8);
	return ~crc;
}

static char *page_at(u32 index)
{
	return (char *)mailbox + (size_t)index * PAGE;
}

struct worker_page *worker_page(u32 worker)
{
	return (struct worker_page *)page_at(mailbox->workers_at + worker);
}

/* Documentation/admin-guide/mm/pagemap.rst: bits 0 to 54 are the frame, bit 63 says that it is in memory. */
static void find_frames(u32 pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	for (u32 i = 0; i < pages; i++) {
		u64 entry = 0;
		off_t at = (off_t)((uintptr_t)page_at(i) / PAGE * sizeof(entry));
		if (fd < 0 || pread(fd, &entry, sizeof(entry), at) != sizeof(entry) || !(entry >> 63))
			die("the kernel does not tell page frames");
		mailbox->directory[i] = (u32)(entry & ((1ull << 55) - 1));
	}
	close(fd);
}

static void announce(void)
{
	char line[64];
	int length = snprintf(line, sizeof(line), "ktstr mailbox %x %x\n", mailbox->directory[0], mailbox->crc);
	int fd = open("/dev/ttyS1", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || write(fd, line, (size_t)length) != length)
		die("ttyS1 cannot be written");
	close(fd);
}

void mailbox_make(u32 workers)
{
	u32 pages = 1 + workers + LOG_PAGES;
	size_t bytes = (size_t)pages * PAGE;
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		die("no memory for the mailbox");
	madvise(at, bytes, MADV_NOHUGEPAGE);
	if (mlock(at, bytes) != 0)
		die("the mailbox cannot be locked");
	mailbox = at;
	for (u32 i = 0; i < pages; i++) {
		u32 *words = (u32 *)page_at(i);
		words[0] = PAGE_MAGIC;
		words[1] = i;
	}
	memcpy(mailbox->magic, MAILBOX_MAGIC, 8);
	mailbox->version = PROTOCOL_VERSION;
	mailbox->pages = pages;
	mailbox->workers_at = 1;
	mailbox->workers = workers;
	mailbox->log_at = 1 + workers;
	mailbox->log_pages = LOG_PAGES;
	find_frames(pages);
	mailbox->crc = crc32_of(0, mailbox->magic, offsetof(struct mailbox_head, crc) - offsetof(struct mailbox_head, magic));
	mailbox->crc = crc32_of(mailbox->crc, mailbox->directory, pages * sizeof(u32));
	announce();
}

/* The log lies in its pages without their heads. */
static void log_copy(u32 at, const void *bytes, u32 length)
{
	const u32 room = PAGE - PAGE_HEAD;
	for (u32 done = 0; done < length;) {
		u32 within = (at + done) % room;
		u32 part = room - within < length - done ? room - within : length - done;
		char *to = page_at(mailbox->log_at + (at + done) / room) + PAGE_HEAD + within;
		memcpy(to, (const char *)bytes + done, part);
		done += part;
	}
}

/* Lines may fill 5/8 of the log: what a verdict needs must have room. */
static int has_room(u16 kind, u32 total)
{
	u64 all = (u64)LOG_PAGES * (PAGE - PAGE_HEAD);
	u64 most = kind == RECORD_LINE ? all / 8 * 5 : all;
	return mailbox->log_bytes + (u64)total <= most;
}

void put_record(u16 kind, const void *payload, u32 length, const void *more, u32 more_length)
{
	struct record_header record = {
		.magic = RECORD_MAGIC, .kind = kind, .length = length + more_length, .sequence = sequence++, .ns = now_ns(),
	};
	u32 total = (u32)sizeof(record) + (length + more_length + 7) / 8 * 8;
	u32 at = mailbox->log_bytes;
	if (!has_room(kind, total)) {
		mailbox->lost++;
		return;
	}
	record.crc = crc32_of(crc32_of(crc32_of(0, &record, sizeof(record)), payload, length), more, more_length);
	log_copy(at, &record, sizeof(record));
	log_copy(at + (u32)sizeof(record), payload, length);
	log_copy(at + (u32)sizeof(record) + length, more, more_length);
	__atomic_store_n(&mailbox->log_bytes, at + total, __ATOMIC_RELEASE);
}
