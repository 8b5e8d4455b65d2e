/* env.c: read from /proc and /sys; what cannot be read is said to be unknown, never guessed. */
#include "bench/env.h"
#include "bench/tick.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* First line of a file without its newline; "unknown" if there is none. */
static void read_line(const char *path, char *ret, size_t size) {
        FILE *f;

        snprintf(ret, size, "unknown");
        f = fopen(path, "re");
        if (!f)
                return;
        if (fgets(ret, (int)size, f))
                ret[strcspn(ret, "\n")] = 0;
        fclose(f);
}

/* "KEY : value" of a /proc file. */
static bool read_key(const char *path, const char *key, char *ret, size_t size) {
        char line[4096];
        const char *value;
        bool found = false;
        FILE *f;

        f = fopen(path, "re");
        if (!f)
                return false;
        while (!found && fgets(line, sizeof(line), f)) {
                value = strchr(line, ':');
                if (strncmp(line, key, strlen(key)) != 0 || !value)
                        continue;
                value += 1 + strspn(value + 1, " \t");
                snprintf(ret, size, "%.*s", (int)strcspn(value, "\n"), value);
                found = true;
        }
        fclose(f);
        return found;
}

/* "always [madvise] never" -> "madvise" */
static void read_selected(const char *path, char *ret, size_t size) {
        char line[128], *begin, *end;

        read_line(path, line, sizeof(line));
        begin = strchr(line, '[');
        end = begin ? strchr(begin, ']') : NULL;
        if (end)
                snprintf(ret, size, "%.*s", (int)(end - begin - 1), begin + 1);
        else
                snprintf(ret, size, "%.*s", (int)size - 1, line);
}

static void read_ticks(uint64_t *all, uint64_t *steal) {
        unsigned long long v[8] = {0};
        FILE *f;

        *all = *steal = 0;
        f = fopen("/proc/stat", "re");
        if (!f)
                return;
        /* cpu user nice system idle iowait irq softirq steal: the later two are already in user and nice */
        if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6],
                    &v[7]) == 8) {
                for (int i = 0; i < 8; i++)
                        *all += v[i];
                *steal = v[7];
        }
        fclose(f);
}

static void read_hypervisor(char *ret, size_t size) {
        char flags[4096];

        snprintf(ret, size, "none");
#if defined(__x86_64__)
        unsigned regs[4] = {0};

        if (!read_key("/proc/cpuinfo", "flags", flags, sizeof(flags)) || !strstr(flags, " hypervisor"))
                return;
        __asm__ volatile("cpuid"
                         : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
                         : "a"(0x40000000), "c"(0));
        snprintf(ret, size, "%.12s", (const char *)&regs[1]);
#else
        if (!access("/sys/hypervisor/type", R_OK))
                read_line("/sys/hypervisor/type", ret, size);
        (void)flags;
#endif
}

void env_read(struct env *e) {
        struct utsname u;
        char number[32];

        memset(e, 0, sizeof(*e));
        if (!read_key("/proc/cpuinfo", "model name", e->cpu_model, sizeof(e->cpu_model)))
                snprintf(e->cpu_model, sizeof(e->cpu_model), "unknown");
        if (uname(&u) == 0)
                snprintf(e->kernel, sizeof(e->kernel), "%.30s %.40s %.20s", u.sysname, u.release, u.machine);
        read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", e->governor, sizeof(e->governor));
        read_selected("/sys/kernel/mm/transparent_hugepage/shmem_enabled", e->thp_shmem, sizeof(e->thp_shmem));
        read_hypervisor(e->hypervisor, sizeof(e->hypervisor));
        e->huge_free = e->huge_total = -1;
        if (read_key("/proc/meminfo", "HugePages_Free", number, sizeof(number)))
                sscanf(number, "%ld", &e->huge_free);
        if (read_key("/proc/meminfo", "HugePages_Total", number, sizeof(number)))
                sscanf(number, "%ld", &e->huge_total);
        e->cpus_online = (int)sysconf(_SC_NPROCESSORS_ONLN);
        read_ticks(&e->ticks_all, &e->ticks_steal);
}

double env_steal_percent(const struct env *e) {
        uint64_t all, steal;

        read_ticks(&all, &steal);
        if (all <= e->ticks_all)
                return 0;
        return 100.0 * (double)(steal - e->ticks_steal) / (double)(all - e->ticks_all);
}

static uint64_t clock_raw_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC_RAW, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double env_ticks_per_ns(void) {
        const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
        uint64_t t0, t1, n0, n1;

        n0 = clock_raw_ns();
        t0 = tick_now();
        nanosleep(&pause, NULL);
        n1 = clock_raw_ns();
        t1 = tick_now();
        return (double)(t1 - t0) / (double)(n1 - n0);
}
