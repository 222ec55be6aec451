/* SPDX-License-Identifier: Apache-2.0 */
/* What the runtime hands over to the small init: the layout is that of launch/program.py. */
#pragma once
#include <stdint.h>

#define MAGIC 0x52464932u /* RFI2 */
#define MOST_BYTES (192 * 1024)
#define MOST_FDS 250
#define MOST_SLOTS 1024
#define CHANNEL 3
#define MOST_PATH 4096

/* Kinds of steps, and what an argument is. */
enum {
	CALL,
	ENSURE,
	CHECK_MAGIC,
	CHECK_NOT_MAGIC,
	CHECK_DEVICE,
	SKIP,
	SKIP_UNLESS_DIRECTORY,
	EXISTING_MODE,
	DROP_BOUNDING,
	HOME,
	DIRECTORY,
	STREAMS,
	FIND,
	READY,
	EXECUTE
};
enum { NUMBER, SLOT, DATA };

struct step {
	uint16_t kind;
	uint16_t number;   /* the system call */
	int16_t result;	   /* the slot that its result goes to, or -1 */
	uint16_t skip;	   /* after one of the errors below: how many steps are left out */
	int16_t errors[4]; /* errors that do not matter; 0: none */
	uint8_t how[8];	   /* of each argument; six are used */
	uint64_t arguments[6];
};

_Static_assert(sizeof(struct step) == 72, "program.py packs it so");

struct header {
	uint32_t magic;
	uint32_t steps;
	uint32_t fds;
	uint32_t pointers;
	uint32_t data; /* bytes */
	uint32_t reserved;
};

struct how {
	uint64_t flags, mode, resolve;
};

/* Where results go, descriptors that came first; and the texts and structures that steps point to. */
extern int slots[MOST_SLOTS];
extern char *data;

/* Make a step; how many of the following ones to leave out. */
unsigned take(const struct step *step);

/* Something that the list did not foresee: let Python do it. */
void give_up(void) __attribute__((noreturn));

static inline void must(int condition)
{
	if (!condition)
		give_up();
}
