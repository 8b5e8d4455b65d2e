/* See key.h. */
#include "link/key.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

struct key {
        size_t n;
        unsigned char bytes[KEY_BYTES_MAX + 1];
};

int key_load(const char *path, struct key **ret) {
        _cleanup_(cleanup_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        struct stat st;
        struct key *k;
        ssize_t n;

        if (fd < 0)
                return error_set(-errno, "the key file %s: %m", path);
        if (fstat(fd, &st) < 0)
                return error_set(-errno, "the key file %s: %m", path);
        if (!S_ISREG(st.st_mode))
                return error_set(-EINVAL, "the key file %s is no regular file", path);
        if ((st.st_uid != geteuid() && st.st_uid != 0) || st.st_mode & 077)
                return error_set(-EACCES, "the key file %s may be read or written by others: chmod 600, and your own", path);
        if (sodium_init() < 0)
                return error_set(-ENOTSUP, "libsodium cannot be initialised");
        k = calloc(1, sizeof(*k));
        if (!k)
                return error_set(-ENOMEM, "no memory for a key");
        do
                n = read(fd, k->bytes + k->n, sizeof(k->bytes) - k->n);
        while (n > 0 && (k->n += (size_t)n) < sizeof(k->bytes));
        if (n < 0 || k->n < KEY_BYTES_MIN || k->n > KEY_BYTES_MAX) {
                int r = n < 0 ? -errno : -EINVAL;

                key_free(k);
                return r == -EINVAL ? error_set(r, "the key file %s has to have %u to %u bytes", path, KEY_BYTES_MIN, KEY_BYTES_MAX)
                                    : error_set(r, "the key file %s: %s", path, strerror(-r));
        }
        *ret = k;
        return 0;
}

struct key *key_free(struct key *k) {
        if (k)
                sodium_memzero(k, sizeof(*k));
        free(k);
        return NULL;
}

void key_mac(void *key, const void *bytes, size_t n, unsigned char ret[32]) {
        const struct key *k = key;
        crypto_auth_hmacsha256_state state;

        static_assert(crypto_auth_hmacsha256_BYTES == 32, "what a proof has");
        (void)crypto_auth_hmacsha256_init(&state, k->bytes, k->n);
        (void)crypto_auth_hmacsha256_update(&state, bytes, n);
        (void)crypto_auth_hmacsha256_final(&state, ret);
        sodium_memzero(&state, sizeof(state));
}

int key_random(void *to, size_t n) {
        randombytes_buf(to, n);
        return 0;
}
