/*
 * Errors: functions return 0 or a count, else a negative errno. Next to the number stands one sentence for a
 * human, kept per thread: what was attempted, what stood in the way, and the likely cure.
 */
#ifndef PSYNE_BASE_ERROR_H
#define PSYNE_BASE_ERROR_H

/* Records the sentence and returns @r (a negative errno), so that `return error_set(-EINVAL, "...")` reads well. */
int error_set(int r, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* As error_set(), but keeps an earlier, more exact sentence recorded for the same @r since error_clear(). */
int error_default(int r, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

void error_clear(void);
const char *error_get(void); /* never NULL */
#endif
