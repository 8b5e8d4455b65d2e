/* CRC-32C (Castagnoli), reflected: by the CPU's own instruction where there is one, else by a table made at first use. */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "link/protocol.h"

static uint32_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_make(void) {
        for (uint32_t i = 0; i < 256; i++) {
                uint32_t c = i;

                for (int k = 0; k < 8; k++)
                        c = c & 1 ? 0x82f63b78u ^ c >> 1 : c >> 1;
                table[i] = c;
        }
}

static uint32_t by_table(uint32_t crc, const unsigned char *p, size_t n) {
        pthread_once(&table_once, table_make);
        for (; n; n--)
                crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
        return crc;
}

#if defined(__x86_64__)
#include <immintrin.h>
__attribute__((target("sse4.2"))) static uint32_t by_cpu(uint32_t crc, const unsigned char *p, size_t n) {
        uint64_t c = crc, w;

        for (; n >= 8; n -= 8, p += 8) {
                memcpy(&w, p, 8);
                c = _mm_crc32_u64(c, w);
        }
        for (; n; n--)
                c = _mm_crc32_u8((uint32_t)c, *p++);
        return (uint32_t)c;
}

static int have_cpu(void) {
        return __builtin_cpu_supports("sse4.2");
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
static uint32_t by_cpu(uint32_t crc, const unsigned char *p, size_t n) {
        uint64_t w;

        for (; n >= 8; n -= 8, p += 8) {
                memcpy(&w, p, 8);
                crc = __crc32cd(crc, w);
        }
        for (; n; n--)
                crc = __crc32cb(crc, *p++);
        return crc;
}

static int have_cpu(void) {
        return 1;
}
#else
static uint32_t by_cpu(uint32_t crc, const unsigned char *p, size_t n) {
        return by_table(crc, p, n);
}

static int have_cpu(void) {
        return 0;
}
#endif

/* Of @n bytes that follow those @crc is of (0: none). */
uint32_t link_crc32c(uint32_t crc, const void *bytes, size_t n) {
        return ~(have_cpu() ? by_cpu(~crc, bytes, n) : by_table(~crc, bytes, n));
}
