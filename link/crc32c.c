/* CRC-32C (Castagnoli), reflected: by the CPU's own instruction where there is one, else by a table made at first use. */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "link/protocol.h"

#define POLYNOMIAL 0x82f63b78u
#define SIDE_BYTES 1024u

static uint32_t table[256];
static uint32_t on_by_one, on_by_two; /* what moves a checksum on by so many SIDE_BYTES, see on_by() */
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

/* x^@n, modulo the polynomial; its highest coefficient is the lowest bit. */
static uint32_t x_to_the(unsigned n) {
        uint32_t c = 1u << 31;

        for (; n; n--)
                c = c & 1 ? POLYNOMIAL ^ c >> 1 : c >> 1;
        return c;
}

static void tables_make(void) {
        on_by_one = x_to_the(8 * SIDE_BYTES - 33);
        on_by_two = x_to_the(16 * SIDE_BYTES - 33);
        for (uint32_t i = 0; i < 256; i++) {
                uint32_t c = i;

                for (int k = 0; k < 8; k++)
                        c = c & 1 ? POLYNOMIAL ^ c >> 1 : c >> 1;
                table[i] = c;
        }
}

static uint32_t by_table(uint32_t crc, const unsigned char *p, size_t n) {
        pthread_once(&tables_once, tables_make);
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

/*
 * The checksum @crc, as if @n zero bytes had followed: times x^(8n). The product of two such numbers has a factor x more than
 * it looks, and the instruction brings x^32 with it, so @by is x^(8n - 33).
 */
__attribute__((target("sse4.2,pclmul"))) static uint64_t on_by(uint64_t crc, uint32_t by) {
        __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi32_si128((int)by), 0);

        return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* The instruction takes three cycles, and one can begin in each: three stretches side by side. */
__attribute__((target("sse4.2,pclmul"))) static uint32_t by_three(uint32_t crc, const unsigned char *p, size_t n) {
        pthread_once(&tables_once, tables_make);
        for (; n >= 3 * SIDE_BYTES; n -= 3 * SIDE_BYTES, p += 3 * SIDE_BYTES) {
                uint64_t a = crc, b = 0, c = 0, w[3];

                for (size_t i = 0; i < SIDE_BYTES; i += 8) {
                        memcpy(&w[0], p + i, 8);
                        memcpy(&w[1], p + SIDE_BYTES + i, 8);
                        memcpy(&w[2], p + 2 * SIDE_BYTES + i, 8);
                        a = _mm_crc32_u64(a, w[0]);
                        b = _mm_crc32_u64(b, w[1]);
                        c = _mm_crc32_u64(c, w[2]);
                }
                crc = (uint32_t)(on_by(a, on_by_two) ^ on_by(b, on_by_one) ^ c);
        }
        return by_cpu(crc, p, n);
}

static int have_cpu(void) {
        return __builtin_cpu_supports("sse4.2");
}

static int have_three(void) {
        return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
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
#if defined(__x86_64__)
        if (n >= 3 * SIDE_BYTES && have_three())
                return ~by_three(~crc, bytes, n);
#endif
        return ~(have_cpu() ? by_cpu(~crc, bytes, n) : by_table(~crc, bytes, n));
}
