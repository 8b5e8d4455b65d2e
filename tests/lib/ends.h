/* A channel in this process with both ends, for tests of what stands on top of them. */
#ifndef PSYNE_TESTS_LIB_ENDS_H
#define PSYNE_TESTS_LIB_ENDS_H
#include <criterion/criterion.h>
#include <psyne/psyne.h>

static struct psyne_channel *ch;
static struct psyne_producer *p;
static struct psyne_consumer *c;

static inline void open_as(const char *uri, const struct psyne_opts *opts, const struct psyne_producer_opts *producer) {
        cr_assert_eq(psyne_open(uri, opts, &ch), 0, "%s", psyne_last_error());
        cr_assert_eq(psyne_producer_open(ch, producer, &p), 0);
        cr_assert_eq(psyne_consumer_open(ch, NULL, &c), 0);
}

static inline void open_channel(const char *uri) {
        open_as(uri, NULL, NULL);
}

static inline void open_default(void) {
        open_channel("memory://?size=1M");
}

static inline void close_channel(void) {
        (void)psyne_consumer_close(c);
        (void)psyne_producer_close(p);
        ch = psyne_close(ch);
}
#endif
