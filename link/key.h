/*
 * A key that both ends of a link know: the bytes of a file that nobody else may read, and HMAC-SHA-256 with it. Only what
 * proves that one knows it ever leaves the process.
 */
#ifndef PSYNE_LINK_KEY_H
#define PSYNE_LINK_KEY_H
#include <stddef.h>

#define KEY_BYTES_MIN 16u
#define KEY_BYTES_MAX 4096u

struct key;

/* -EACCES: others than its owner, who is this user or root, may read or write it; -EINVAL: no regular file, or too short or
 * too long; -ENOTSUP: built without libsodium; as open(2) and read(2). */
int key_load(const char *path, struct key **ret);
struct key *key_free(struct key *k); /* forgets it; returns NULL, accepts it */
void key_mac(void *key, const void *bytes, size_t n, unsigned char ret[32]); /* a link_mac_fn */
int key_random(void *to, size_t n); /* for nonces; 0, -errno */
#endif
