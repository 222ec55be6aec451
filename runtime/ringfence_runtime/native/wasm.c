// SPDX-License-Identifier: Apache-2.0
/*
 * The host of a WebAssembly module.
 *
 * wasm compile [-e] <MODULE >CODE: compiles a module to native code, outside of any container.
 * wasm run CODE [OPTIONS] -- ARGUMENTS: executes that code as the container's process, after all fences of the
 * runtime; see OPTIONS in `parse`. Compiles nothing. The environment of the module has the prefix `W_`, because
 * the dynamic loader must not interpret what was meant for the module.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "wasm.h"

#define MOST_BYTES (64 << 20) /* of a module; wasm.py has the same limit */
#define MOST_PLACES 256
enum { TRAPPED = 134, BROKEN = 126 };

extern char **environ;
static wasm_engine_t *engine;

_Noreturn void fail(const char *what, const char *why)
{
	fprintf(stderr, "wasm: %s: %s\n", what, why);
	_exit(BROKEN);
}

/* A message in one line without control characters; of several causes the last one, if `innermost`. */
static const char *one_line(const wasm_byte_vec_t *message, bool innermost)
{
	static char text[512];
	size_t size = message->size < sizeof(text) ? message->size : sizeof(text) - 1;
	size_t skipped = innermost ? message->size - size : 0;
	memcpy(text, message->data + skipped, size);
	while (size && (unsigned char)text[size - 1] <= ' ')
		size--;
	text[size] = 0;
	char *line = innermost ? strrchr(text, '\n') : NULL;
	line = line ? line + 1 : text;
	line += strspn(line, " 0123456789:");
	for (char *byte = line; *byte; byte++)
		if ((unsigned char)*byte < ' ' || *byte == 127)
			*byte = ' ';
	return line;
}

static void check(wasmtime_error_t *error, const char *what)
{
	wasm_byte_vec_t message;
	if (!error)
		return;
	wasmtime_error_message(error, &message);
	fail(what, one_line(&message, false));
}

static void make_engine(bool interruptible)
{
	wasm_config_t *config = wasm_config_new();
	wasmtime_config_epoch_interruption_set(config, interruptible);
	wasmtime_config_parallel_compilation_set(config, false);
	engine = wasm_engine_new_with_config(config);
	if (!engine)
		fail("cannot start the engine", "this processor is not supported");
}

static int compile(bool interruptible)
{
	wasmtime_module_t *module;
	wasm_byte_vec_t code;
	size_t size = 0;
	ssize_t got;
	make_engine(interruptible);
	fence_compiler();
	uint8_t *bytes = malloc(MOST_BYTES);
	if (!bytes)
		fail("cannot read the module", "no memory");
	while (size < MOST_BYTES && (got = read(0, bytes + size, MOST_BYTES - size)) > 0)
		size += got;
	check(wasmtime_module_new(engine, bytes, size, &module), "cannot compile the module");
	check(wasmtime_module_serialize(module, &code), "cannot serialize the code");
	for (size = 0; size < code.size; size += got)
		if ((got = write(1, code.data + size, code.size - size)) <= 0)
			fail("cannot write the code", "the file ends early");
	_exit(0);
}

struct options {
	struct place places[MOST_PLACES];
	int count;
	long long memory;   /* bytes of each linear memory; -1: no limit */
	long long deadline; /* milliseconds; 0: none */
	char **arguments;
};

/* -r DIR, -w DIR: preopen for reading, for writing; -m BYTES: limit of memory; -d MS: deadline. */
static void parse(struct options *to, char **words)
{
	to->memory = -1;
	for (; *words && strcmp(*words, "--"); words += 2) {
		char kind = (*words)[0] == '-' ? (*words)[1] : 0;
		if (!words[1])
			fail("internal error", "an option has no value");
		if (kind == 'm')
			to->memory = atoll(words[1]);
		else if (kind == 'd')
			to->deadline = atoll(words[1]);
		else if (to->count < MOST_PLACES)
			to->places[to->count++] = (struct place){ words[1], kind == 'w' };
		else
			fail("cannot start", "more than 256 mounts");
	}
	to->arguments = *words ? words + 1 : words;
}

/* As process 1 of a pid namespace, it is ended by no signal that it does not handle. */
static void on_end(int number)
{
	_exit(128 + number);
}

static void on_deadline(int number)
{
	static const char text[] = "wasm: the module is ended: its deadline has passed\n";
	static int count;
	(void)number;
	wasmtime_engine_increment_epoch(engine);
	/* It is not at a place where the engine looks: in a host function that waits. */
	if (count++) {
		ssize_t ignored = write(2, text, sizeof(text) - 1);
		(void)ignored;
		_exit(TRAPPED);
	}
}

static void handle_signals(long long deadline)
{
	static const int ends[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };
	struct itimerval timer = { { 0, 200000 }, { deadline / 1000, deadline % 1000 * 1000 } };
	struct sigaction action = { .sa_handler = on_end, .sa_flags = SA_ONSTACK };
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		sigaction(ends[i], &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (!deadline)
		return;
	action.sa_handler = on_deadline;
	action.sa_flags |= SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

static void set_environment(wasi_config_t *wasi)
{
	size_t count = 0, size = 0;
	while (environ[size])
		size++;
	const char **names = calloc(size + 1, sizeof(*names)), **values = calloc(size + 1, sizeof(*values));
	if (!names || !values)
		fail("cannot start", "no memory");
	for (size_t i = 0; i < size; i++) {
		char *equals = strchr(environ[i], '=');
		if (strncmp(environ[i], "W_", 2) || !equals)
			continue;
		names[count] = strndup(environ[i] + 2, equals - environ[i] - 2);
		values[count++] = equals + 1;
	}
	if (!wasi_config_set_env(wasi, count, names, values))
		fail("cannot start", "the environment is not UTF-8");
}

static wasi_config_t *make_wasi(struct options *options)
{
	wasi_config_t *wasi = wasi_config_new();
	size_t count = 0;
	while (options->arguments[count])
		count++;
	if (!wasi_config_set_argv(wasi, count, (const char **)options->arguments))
		fail("cannot start", "the arguments are not UTF-8");
	set_environment(wasi);
	wasi_config_inherit_stdin(wasi);
	wasi_config_inherit_stdout(wasi);
	wasi_config_inherit_stderr(wasi);
	for (int i = 0; i < options->count; i++) {
		struct place *place = &options->places[i];
		struct stat status;
		/* a mount of a single file is reached through the directory that holds it */
		if (stat(place->path, &status) || !S_ISDIR(status.st_mode))
			continue;
		if (!wasi_config_preopen_dir(wasi, place->path, place->path, place->writable))
			fail("cannot open a directory", place->path);
	}
	return wasi;
}

static int finish(wasmtime_error_t *error, wasm_trap_t *trap)
{
	wasm_byte_vec_t message;
	int code = 0;
	if (error && wasmtime_error_exit_status(error, &code))
		return code;
	if (!error && !trap)
		return 0;
	if (error)
		wasmtime_error_message(error, &message);
	else
		wasm_trap_message(trap, &message);
	fprintf(stderr, "wasm: the module is ended: %s\n", one_line(&message, true));
	return TRAPPED;
}

static int run(const char *code, char **words)
{
	struct options options = { .count = 0 };
	wasmtime_module_t *module;
	wasmtime_func_t start;
	wasm_trap_t *trap = NULL;
	parse(&options, words);
	make_engine(options.deadline > 0);
	check(wasmtime_module_deserialize_file(engine, code, &module), "cannot load the compiled module");
	wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
	wasmtime_context_t *context = wasmtime_store_context(store);
	wasmtime_linker_t *linker = wasmtime_linker_new(engine);
	wasmtime_store_limiter(store, options.memory, 1 << 20, 1, 16, 16);
	if (options.deadline > 0)
		wasmtime_context_set_epoch_deadline(context, 1);
	check(wasmtime_context_set_wasi(context, make_wasi(&options)), "cannot set up WASI");
	check(wasmtime_linker_define_wasi(linker), "cannot set up WASI");
	handle_signals(options.deadline);
	fence_files(options.places, options.count);
	fence_calls();
	/* Runs the module's start function, if it has one: so it comes after the fences. */
	wasmtime_error_t *error = wasmtime_linker_module(linker, context, "", 0, module);
	if (error)
		return finish(error, NULL);
	check(wasmtime_linker_get_default(linker, context, "", 0, &start), "the module has no _start");
	error = wasmtime_func_call(context, &start, NULL, 0, NULL, 0, &trap);
	return finish(error, trap);
}

int main(int count, char **words)
{
	if (count >= 2 && !strcmp(words[1], "compile"))
		return compile(count > 2);
	if (count < 4 || strcmp(words[1], "run"))
		fail("usage", "wasm compile | wasm run CODE [OPTIONS] -- ARGUMENTS");
	fflush(NULL);
	_exit(run(words[2], words + 3));
}
