/* The per-thread sentence behind the last negative errno. A fixed buffer: recording an error never allocates. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

#define ERROR_SENTENCE_MAX 512 /* bytes; chosen by feel, longer ones are cut */

static __thread char error_sentence[ERROR_SENTENCE_MAX];
static __thread int error_code;

int error_set(int r, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        vsnprintf(error_sentence, sizeof(error_sentence), format, ap);
        va_end(ap);
        error_code = r;
        return r;
}

int error_default(int r, const char *format, ...) {
        va_list ap;

        if (error_code == r && error_sentence[0])
                return r;
        va_start(ap, format);
        vsnprintf(error_sentence, sizeof(error_sentence), format, ap);
        va_end(ap);
        error_code = r;
        return r;
}

void error_clear(void) {
        error_code = 0;
        error_sentence[0] = '\0';
}

const char *error_get(void) {
        return error_sentence[0] ? error_sentence : "no error";
}
