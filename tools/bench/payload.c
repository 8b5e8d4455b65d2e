/* payload.c: the template that large messages are copied from. */
#include "bench/payload.h"

#include <errno.h>
#include <stdlib.h>

uint64_t *payload_template;
uint64_t payload_template_sum;

int payload_prepare(size_t size) {
        uint64_t *t;
        void *p;

        free(payload_template);
        payload_template = NULL;
        payload_template_sum = 0;
        if (size < PAYLOAD_COPY_MIN)
                return 0;

        if (posix_memalign(&p, 4096, size) != 0)
                return -ENOMEM;
        t = p;
        t[0] = 0;
        for (size_t i = 1; i < size / 8; i++) {
                t[i] = i * UINT64_C(0x9e3779b97f4a7c15); /* any pattern without repeats */
                payload_template_sum += t[i];
        }
        payload_template = t;
        return 0;
}
