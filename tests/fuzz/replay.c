/* Every file of a corpus once, with whatever compiler: replay DIRECTORY. */
#include <dirent.h>

#include "fuzz.h"

static int replay(const char *directory, const char *name) {
        char path[4096];
        unsigned char bytes[65536], *exact;
        size_t n;
        FILE *f;

        snprintf(path, sizeof(path), "%s/%s", directory, name);
        f = fopen(path, "rb");
        if (!f) {
                perror(path);
                return -1;
        }
        n = fread(bytes, 1, sizeof(bytes), f);
        fclose(f);
        exact = malloc(n ? n : 1); /* so that reading past it is seen */
        if (!exact)
                return -1;
        memcpy(exact, bytes, n);
        printf("%s\n", name); /* the last line is the one that aborted */
        fflush(stdout);
        (void)LLVMFuzzerTestOneInput(exact, n);
        free(exact);
        return 0;
}

int main(int argc, char **argv) {
        struct dirent **names;
        int n = argc == 2 ? scandir(argv[1], &names, NULL, alphasort) : -1, files = 0, bad = 0;

        if (n < 0) {
                fprintf(stderr, "usage: replay DIRECTORY\n");
                return 2;
        }
        for (int i = 0; i < n; i++) {
                if (names[i]->d_name[0] != '.') {
                        bad |= replay(argv[1], names[i]->d_name);
                        files++;
                }
                free(names[i]);
        }
        free(names);
        printf("%d files\n", files);
        return bad || !files;
}
