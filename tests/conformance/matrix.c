/* At the end: which family passed in which world. Only the parent process sees all results. */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <stdio.h>
#include <string.h>

static const char *const worlds[] = {"memory", "ipc_same", "ipc_two", "tcp_two"};

ReportHook(POST_ALL)(struct criterion_global_stats *stats) {
        fprintf(stderr, "\n%-24s", "family");
        for (unsigned i = 0; i < sizeof(worlds) / sizeof(worlds[0]); i++)
                fprintf(stderr, " %-16s", worlds[i]);
        fputc('\n', stderr);
        for (struct criterion_suite_stats *s = stats->suites; s; s = s->next) {
                bool family = false;

                for (struct criterion_test_stats *t = s->tests; t; t = t->next)
                        for (unsigned i = 0; i < sizeof(worlds) / sizeof(worlds[0]); i++)
                                family |= strncmp(t->test->name, worlds[i], strlen(worlds[i])) == 0;
                if (!family)
                        continue;
                fprintf(stderr, "%-24s", s->suite->name);
                for (unsigned i = 0; i < sizeof(worlds) / sizeof(worlds[0]); i++) {
                        char cell[64] = "";

                        for (struct criterion_test_stats *t = s->tests; t; t = t->next) {
                                size_t n = strlen(worlds[i]);

                                if (strncmp(t->test->name, worlds[i], n) == 0 && t->test->name[n] == '_')
                                        snprintf(cell + strlen(cell), sizeof(cell) - strlen(cell), "%s:%s ",
                                                t->test->name + n + 1,
                                                t->test_status == CR_STATUS_PASSED          ? "pass"
                                                        : t->test_status == CR_STATUS_SKIPPED ? "skip"
                                                                                              : "FAIL");
                        }
                        fprintf(stderr, " %-16s", cell);
                }
                fputc('\n', stderr);
        }
}
