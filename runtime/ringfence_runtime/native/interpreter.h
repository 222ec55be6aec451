/* SPDX-License-Identifier: Apache-2.0 */
/* The program that the runtime sends to the native init. launch/program.py has the same layout. */
#pragma once
#include <stdint.h>

#define MAGIC 0x52464933u /* RFI3 */
#define MOST_BYTES (192 * 1024)
#define MOST_FDS 250
#define MOST_SLOTS 1024
#define CHANNEL 3
#define MOST_PATH 4096

/* The message that asks the runtime to launch the container with the Python init instead. */
#define FALLBACK "B"

/* Kinds of instructions, and kinds of arguments. */
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

struct instruction {
	uint16_t kind;
	uint16_t number;   /* the system call */
	int16_t result;	   /* the slot that receives its result, or -1 */
	uint16_t skip;	   /* how many instructions are skipped after one of the errors below */
	int16_t errors[8]; /* errors that are expected; 0: none */
	uint8_t how[8];	   /* the kind of each argument; six are used */
	uint64_t arguments[6];
};

_Static_assert(sizeof(struct instruction) == 80, "program.py packs it with this size");

struct header {
	uint32_t magic;
	uint32_t instructions;
	uint32_t fds;
	uint32_t pointers;
	uint32_t data; /* bytes */
	uint32_t reserved;
};

struct how {
	uint64_t flags, mode, resolve;
};

/* Results, and the descriptors of the message in the first slots; texts and structures that instructions point to. */
extern int slots[MOST_SLOTS];
extern char *data;

/* Executes an instruction. Returns how many of the following ones to skip. */
unsigned perform(const struct instruction *op);

/* Ends the init: something happened that the program does not cover, and the Python init must handle it. */
void fall_back(void) __attribute__((noreturn));

static inline void must(int condition)
{
	if (!condition)
		fall_back();
}
