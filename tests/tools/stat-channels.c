/*
 * stat-channels: what test-stat.sh looks at.
 *
 *      stat-channels live DIR READY        two processes exchange messages on ipc://live; then READY is made and they
 *                                          stay, the consumer asleep, until killed or standard input ends
 *      stat-channels evil IMAGE DIR        copies of a control file with terminal escapes in every text
 *      stat-channels mutate IMAGE DIR SEED N   N damaged copies
 */
#include <fcntl.h>
#include <psyne/psyne.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/layout.h"

static int fail(const char *what) {
        perror(what);
        return 1;
}

static int live(const char *dir, const char *ready) {
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_msg m;
        pid_t parent = getpid();
        char data[100] = {0};

        if (setenv("PSYNE_DIR", dir, 1) < 0)
                return fail("setenv");
        if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent || psyne_open("ipc://live?size=64K", NULL, &ch) < 0 ||
                        psyne_consumer_open(ch, NULL, &c) < 0)
                        _exit(1);
                while (psyne_recv(c, &m, PSYNE_FOREVER) == 0)
                        psyne_release(c, &m);
                _exit(0);
        }
        if (psyne_open("ipc://live?size=64K", NULL, &ch) < 0 || psyne_producer_open(ch, NULL, &p) < 0)
                return fail(psyne_last_error());
        for (int i = 0; i < 1234; i++)
                if (psyne_send(p, 1, data, sizeof(data), PSYNE_FOREVER) < 0)
                        return fail(psyne_last_error());
        if (psyne_flush(p, PSYNE_FOREVER) < 0)
                return fail(psyne_last_error());
        close(open(ready, O_WRONLY | O_CREAT, 0600));
        while (read(STDIN_FILENO, data, 1) > 0)
                ;
        return 0;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static unsigned char *slurp(const char *path, size_t *ret) {
        int fd = open(path, O_RDONLY);
        unsigned char *bytes;
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return NULL;
        bytes = malloc((size_t)st.st_size);
        if (!bytes || read(fd, bytes, (size_t)st.st_size) != st.st_size)
                return NULL;
        close(fd);
        *ret = (size_t)st.st_size;
        return bytes;
}

static bool spill(const char *dir, const char *name, const void *bytes, size_t n) {
        char path[4096];
        int fd;

        snprintf(path, sizeof(path), "%s/%s", dir, name);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
                return false;
        close(fd);
        return true;
}

/* Clears the screen, rings the bell, sets the title, and ends nowhere. */
static void poison(char *text, size_t n) {
        static const char evil[] = "\033[2J\007\033]0;owned\007\r\n\t\x9b\"\\%s";

        for (size_t i = 0; i < n; i++)
                text[i] = evil[i % (sizeof(evil) - 1)];
}

static int evil(const char *image, const char *dir) {
        struct layout_view v;
        unsigned char *bytes;
        size_t n;

        bytes = slurp(image, &n);
        if (!bytes)
                return fail(image);
        layout_view_init(&v, bytes, (const void *)bytes);
        poison(v.header->config.name, sizeof(v.header->config.name) - 1);
        for (uint32_t i = 0; i < v.n_peers; i++) {
                v.peers[i].state = LAYOUT_ACTIVE;
                poison(v.peers[i].comm, sizeof(v.peers[i].comm));
        }
        for (uint32_t i = 0; i < v.n_groups; i++) {
                v.groups[i].state = LAYOUT_ACTIVE;
                poison(v.groups[i].name, sizeof(v.groups[i].name));
        }
        for (uint32_t i = 0; i < v.n_facts; i++) {
                struct layout_fact *f = &v.facts[i];

                f->scope = LAYOUT_SCOPE_CHANNEL;
                poison(f->what, sizeof(f->what));
                poison(f->asked, sizeof(f->asked));
                poison(f->obtained, sizeof(f->obtained));
                poison(f->why, sizeof(f->why));
                poison(f->fix, sizeof(f->fix));
        }
        return spill(dir, "evil.psy", bytes, n) && spill(dir, "\033[2J\007evil\n\"\\.psy", bytes, n) ? 0 : fail(dir);
}

static uint64_t next_random(uint64_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

static int mutate(const char *image, const char *dir, uint64_t seed, unsigned count) {
        uint64_t state = seed | 1;
        unsigned char *bytes, *mutant;
        size_t n, shown;

        bytes = slurp(image, &n);
        if (!bytes)
                return fail(image);
        shown = ((const struct layout_header *)(const void *)bytes)->regions[LAYOUT_REGION_EVENTS].offset;
        mutant = malloc(n);
        if (!mutant)
                return fail("malloc");
        for (unsigned i = 0; i < count; i++) {
                unsigned flips = 1 + (unsigned)(next_random(&state) % 400);
                size_t from = next_random(&state) % 16 ? 1024 : 0;
                char name[32];

                memcpy(mutant, bytes, n);
                while (flips--)
                        mutant[from + next_random(&state) % (shown - from)] = (unsigned char)next_random(&state);
                snprintf(name, sizeof(name), "m%05u.%s", i, i % 2 ? "psy" : "dead");
                if (!spill(dir, name, mutant, n))
                        return fail(dir);
        }
        free(mutant);
        free(bytes);
        return 0;
}

int main(int argc, char **argv) {
        if (argc == 4 && strcmp(argv[1], "live") == 0)
                return live(argv[2], argv[3]);
        if (argc == 4 && strcmp(argv[1], "evil") == 0)
                return evil(argv[2], argv[3]);
        if (argc == 6 && strcmp(argv[1], "mutate") == 0)
                return mutate(argv[2], argv[3], strtoull(argv[4], NULL, 0), (unsigned)atoi(argv[5]));
        fprintf(stderr, "stat-channels: see the top of its source\n");
        return 2;
}
