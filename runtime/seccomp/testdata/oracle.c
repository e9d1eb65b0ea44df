/*
 * Builds a filter with libseccomp and writes its BPF program to the file
 * argv[1]. The rules come on standard input, one per line:
 *
 *	default ACTION
 *	arch NAME ...				the filter's architectures
 *	rule ACTION NAME [INDEX OP A B]...	values as in seccomp.h, in hex
 *
 * Standard output tells which rules did not get in: "unknown NAME" for a call
 * libseccomp has never heard of, "refused NAME ERRNO" otherwise. It is made to
 * be called once; nothing is freed.
 */
#include <fcntl.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what, int rc)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-rc));
	exit(1);
}

static void architectures(scmp_filter_ctx ctx, char *rest)
{
	int keep = 0;
	for (char *a = strtok(rest, " "); a; a = strtok(NULL, " ")) {
		uint32_t token = seccomp_arch_resolve_name(a);
		if (token == seccomp_arch_native()) {
			keep = 1;
			continue;
		}
		int rc = token ? seccomp_arch_add(ctx, token) : -22;
		if (rc)
			die(a, rc);
	}
	if (!keep)
		seccomp_arch_remove(ctx, seccomp_arch_native());
}

static void rule(scmp_filter_ctx ctx, char *rest)
{
	char *end, *name;
	uint32_t action = strtoul(rest, &end, 16);
	struct scmp_arg_cmp args[6];
	unsigned n = 0;

	name = strtok(end, " ");
	for (char *f = strtok(NULL, " "); f && n < 6; f = strtok(NULL, " "), n++) {
		args[n].arg = strtoul(f, NULL, 16);
		args[n].op = strtoul(strtok(NULL, " "), NULL, 16);
		args[n].datum_a = strtoull(strtok(NULL, " "), NULL, 16);
		args[n].datum_b = strtoull(strtok(NULL, " "), NULL, 16);
	}
	int nr = seccomp_syscall_resolve_name(name);
	if (nr == __NR_SCMP_ERROR) {
		printf("unknown %s\n", name);
		return;
	}
	int rc = seccomp_rule_add_array(ctx, action, nr, n, args);
	if (rc)
		printf("refused %s %d\n", name, -rc);
}

int main(int argc, char **argv)
{
	scmp_filter_ctx ctx = NULL;
	char line[4096];
	int rc = -22, rules = 0;

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "default ", 8)) {
			ctx = seccomp_init(strtoul(line + 8, NULL, 16));
			if (!ctx)
				die("seccomp_init", -22);
		} else if (!strncmp(line, "arch ", 5)) {
			architectures(ctx, line + 5);
		} else if (!strncmp(line, "rule ", 5)) {
			if (++rules == 33) /* as runc does */
				seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
			rule(ctx, line + 5);
		}
	}
	int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (argc != 2 || fd < 0 || (rc = seccomp_export_bpf(ctx, fd)))
		die("seccomp_export_bpf", rc);
	return 0;
}
