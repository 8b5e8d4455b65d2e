/* What a test without Criterion demands: REQUIRE() in a function that returns 0, or 1 behind a line that says what failed. */
#ifndef PSYNE_TESTS_REQUIRE_H
#define PSYNE_TESTS_REQUIRE_H
#include <stdio.h>

#define REQUIRE(cond)                                                                                                  \
        do {                                                                                                           \
                if (!(cond)) {                                                                                         \
                        printf("FAIL: %s:%d: %s does not hold (%s)\n", __FILE__, __LINE__, #cond, psyne_last_error()); \
                        fflush(stdout);                                                                                \
                        return 1;                                                                                      \
                }                                                                                                      \
        } while (0)
#endif
