/*
 * The directory where the processes of a host meet by name: a tmpfs directory whose owner is trusted. It is a
 * function of the user alone, so that two programs of one user meet without configuration:
 *
 *      the one named in the address, else $PSYNE_DIR, else /dev/shm/psyne-$UID (made here, 0700)
 */
#ifndef PSYNE_DIRECTORY_H
#define PSYNE_DIRECTORY_H
#include <stddef.h>

#define DIRECTORY_ENV "PSYNE_DIR"

/*
 * Opens it; the caller closes *ret_fd. @explicit_dir may be NULL or "". Its path is stored in @ret_path (@n bytes,
 * NULL: not wanted). Only the default directory is ever made.
 *
 * -ENOENT it does not exist; -ENOTDIR not a directory, or a symbolic link; -EACCES a stranger owns it or may replace
 * what is in it, or our own user id is the one that stands for "unknown"; -EXDEV not on tmpfs; -EINVAL not absolute;
 * -ENAMETOOLONG.
 */
int directory_open(const char *explicit_dir, int *ret_fd, char *ret_path, size_t n);
#endif
