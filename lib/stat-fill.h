/* What stat.c has read, and what stat-fill.c makes of it. */
#ifndef PSYNE_STAT_FILL_H
#define PSYNE_STAT_FILL_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "lib/entry.h"
#include "psyne/stat.h"
#include "shm/layout.h"

/* Two looks at one control file, the second one later, and what the kernel said in between. */
struct stat_look {
        int fd;
        struct stat st;
        uint64_t pidns; /* ours, 0 = not known */
        struct layout_region regions[LAYOUT_N_REGIONS]; /* as first seen: the memory was sized by them */
        uint64_t bytes_before, bytes;
        unsigned char *first, *second;  /* private memory, of so many bytes */
        struct layout_view before, now; /* into those, validated; `before` ends with the holds */
        bool held[ENTRY_SLOTS_MAX];     /* slot by slot */
        bool anybody;
};

/* Everything but the file's name. The caller frees *ret with free(). -ENOMEM. */
int stat_fill(struct psyne_stat **ret, const struct stat_look *l);
#endif
