/* Built without libsodium: there are no keys. */
#include "link/key.h"

#include <errno.h>
#include <sys/random.h>

#include "base/error.h"

int key_load(const char *path, struct key **ret) {
        (void)path, (void)ret;
        return error_set(-ENOTSUP, "key= cannot be had: built without libsodium");
}

struct key *key_free(struct key *k) {
        (void)k;
        return NULL;
}

void key_mac(void *key, const void *bytes, size_t n, unsigned char ret[32]) {
        (void)key, (void)bytes, (void)n, (void)ret;
}

int key_random(void *to, size_t n) {
        return getrandom(to, n, 0) == (ssize_t)n ? 0 : -errno;
}
