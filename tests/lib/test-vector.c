/* Arrays of numbers as messages (psyne/vector.h): elements and bytes, where element 0 lies, and heads that lie. */
#include <errno.h>
#include <string.h>

#include <psyne/vector.h>

#include "ends.h"

struct sample {
        double price;
        uint32_t quantity;
        uint8_t side;
};
PSYNE_DEFINE_MSG(sample, struct sample, 7)

TestSuite(vector, .init = open_default, .fini = close_channel);

Test(vector, floats_are_built_in_the_ring) {
        struct psyne_f32vec v;
        struct psyne_msg m;

        cr_assert_eq(psyne_f32vec_claim(p, 1000, PSYNE_NOWAIT, &v), 0);
        cr_expect_eq(v.len, 1000u);
        cr_expect_geq(v.cap, 1000u);
        for (size_t i = 0; i < v.len; i++)
                v.data[i] = (float)i * 0.25f;
        v.len = 900;
        cr_expect_eq(psyne_f32vec_bytes(&v), 3600u);
        cr_assert_eq(psyne_f32vec_commit(p, &v), 0);

        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
        cr_assert_eq(psyne_f32vec_of(&m, &v), 0);
        cr_expect_eq(v.len, 900u);
        cr_expect_eq(psyne_f32vec_bytes(&v), 3600u);
        for (size_t i = 0; i < v.len; i++)
                cr_assert_eq(*psyne_f32vec_at(&v, i), (float)i * 0.25f);
        cr_expect_null(psyne_f32vec_at(&v, 900));
        cr_expect_null(psyne_f32vec_at(&v, SIZE_MAX));
        cr_expect_eq(psyne_release(c, &m), 0);
}

/* The upstream tutorial's coalescer takes a number of floats for a number of bytes. */
Test(vector, elements_are_no_bytes) {
        static const double three[] = {1, 2, 3};
        struct psyne_f64vec v;
        struct psyne_u8vec b;
        struct psyne_msg m;

        cr_assert_eq(psyne_f64vec_send(p, three, 3, PSYNE_NOWAIT), 0);
        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
        cr_assert_eq(m.len, sizeof(struct psyne_vec_head) + sizeof(three));
        cr_assert_eq(psyne_f64vec_of(&m, &v), 0);
        cr_expect_eq(v.len, 3u);
        cr_expect_eq(psyne_f64vec_bytes(&v), 24u);
        cr_expect_arr_eq(v.data, three, sizeof(three));
        cr_expect_eq(psyne_u8vec_of(&m, &b), -EMEDIUMTYPE);
        cr_expect_eq(psyne_release(c, &m), 0);
}

#define EACH(X) X(i8) X(u8) X(i16) X(u16) X(i32) X(u32) X(i64) X(u64) X(f32) X(f64)

/* Every kind, at every length around a cache line, in a ring that wraps, begins at a multiple of 64. */
#define IS_ALIGNED(name) \
        Test(vector, name##_is_aligned) { \
                for (size_t n = 0; n < 3000; n += n < 140 ? 1 : 97) { \
                        struct psyne_##name##vec v; \
                        struct psyne_msg m; \
\
                        cr_assert_eq(psyne_##name##vec_claim(p, n, PSYNE_NOWAIT, &v), 0, "%s", psyne_last_error()); \
                        cr_assert_eq((uintptr_t)v.data % PSYNE_VEC_ALIGN, 0u); \
                        for (size_t i = 0; i < n; i++) \
                                v.data[i] = (__typeof__(*v.data))(i * 7); \
                        cr_assert_eq(psyne_##name##vec_commit(p, &v), 0); \
                        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0); \
                        cr_assert_eq(psyne_##name##vec_of(&m, &v), 0); \
                        cr_assert_eq((uintptr_t)v.data % PSYNE_VEC_ALIGN, 0u); \
                        cr_assert_eq(v.len, n); \
                        for (size_t i = 0; i < n; i++) \
                                cr_assert_eq(v.data[i], (__typeof__(*v.data))(i * 7)); \
                        cr_assert_eq(psyne_release(c, &m), 0); \
                } \
        }
EACH(IS_ALIGNED)

Test(vector, grows_with_its_contents) {
        struct psyne_u32vec v;
        struct psyne_msg m;

        cr_assert_eq(psyne_u32vec_claim(p, 1, PSYNE_NOWAIT, &v), 0);
        v.data[0] = 4711;
        cr_assert_eq(psyne_u32vec_resize(p, &v, 5000), 0, "%s", psyne_last_error());
        cr_expect_eq(v.len, 5000u);
        cr_expect_geq(v.cap, 5000u);
        cr_expect_eq(v.data[0], 4711u);
        cr_expect_eq(psyne_u32vec_resize(p, &v, SIZE_MAX / 4), -EMSGSIZE);
        cr_expect_eq(psyne_u32vec_resize(p, &v, SIZE_MAX), -EMSGSIZE);
        cr_expect_eq(v.len, 5000u);
        v.len = 2;
        v.data[1] = 4712;
        cr_assert_eq(psyne_u32vec_commit(p, &v), 0);
        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
        cr_assert_eq(psyne_u32vec_of(&m, &v), 0);
        cr_expect(v.len == 2 && v.data[0] == 4711 && v.data[1] == 4712);
        cr_expect_eq(psyne_release(c, &m), 0);
}

Test(vector, refuses_misuse) {
        struct psyne_f32vec v, seen;
        struct psyne_vec any;
        struct psyne_msg m;

        cr_expect_eq(psyne_vec_claim(p, (enum psyne_dtype)0, 1, PSYNE_NOWAIT, &any), -EINVAL);
        cr_expect_eq(psyne_vec_claim(p, (enum psyne_dtype)99, 1, PSYNE_NOWAIT, &any), -EINVAL);
        cr_expect_eq(psyne_f32vec_claim(p, SIZE_MAX, PSYNE_NOWAIT, &v), -EMSGSIZE);
        cr_expect_eq(psyne_f32vec_claim(p, SIZE_MAX / 4, PSYNE_NOWAIT, &v), -EMSGSIZE);
        cr_expect_eq(psyne_f32vec_claim(p, 1 << 20, PSYNE_NOWAIT, &v), -EMSGSIZE);
        cr_expect_eq(psyne_f32vec_send(p, NULL, 1, PSYNE_NOWAIT), -EINVAL);
        cr_expect_eq(psyne_vec_of(NULL, PSYNE_F32, &any), -EINVAL);

        cr_assert_eq(psyne_f32vec_claim(p, 4, PSYNE_NOWAIT, &v), 0);
        v.len = v.cap + 1;
        cr_expect_eq(psyne_f32vec_commit(p, &v), -EINVAL);
        v.len = 4;
        v.data[0] = 1;
        cr_expect_eq(psyne_f32vec_commit(p, &v), 0);
        v.len = 1;
        cr_expect_eq(psyne_f32vec_commit(p, &v), -EINVAL, "it has gone");
        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
        cr_assert_eq(psyne_f32vec_of(&m, &seen), 0);
        cr_expect_eq(seen.len, 4u);
        seen.len = 1;
        cr_expect_eq(psyne_f32vec_commit(p, &seen), -EINVAL, "it was received");
        cr_expect(psyne_f32vec_of(&m, &seen) == 0 && seen.len == 4, "and is as it was");
        cr_expect_eq(psyne_release(c, &m), 0);

        cr_assert_eq(psyne_f32vec_claim(p, 4, PSYNE_NOWAIT, &v), 0);
        cr_expect_eq(psyne_f32vec_abort(p, &v), 0);
        cr_expect_eq(psyne_f32vec_commit(p, &v), -EINVAL, "it was given up");
        cr_expect_eq(psyne_recv(c, &m, PSYNE_NOWAIT), -EAGAIN);
}

static _Alignas(64) unsigned char bytes[4096];

/* A message that begins where a record's payload does, with a head that its writer made up. */
static struct psyne_msg made_up(const struct psyne_vec_head *h, size_t len) {
        memcpy(bytes + 16, h, sizeof(*h));
        return (struct psyne_msg){.data = bytes + 16, .len = len};
}

Test(vector, believes_no_head) {
        const struct psyne_vec_head good = {.magic = PSYNE_VEC_MAGIC, .dtype = PSYNE_F32, .elem_bytes = 4, .len = 10};
        const size_t whole = sizeof(good) + 40;
        struct psyne_vec_head h = good;
        struct psyne_msg m = made_up(&h, whole);
        struct psyne_f32vec v;

        cr_assert_eq(psyne_f32vec_of(&m, &v), 0);
        for (size_t len = 0; len < sizeof(good); len++) {
                m = made_up(&good, len);
                cr_expect_eq(psyne_f32vec_of(&m, &v), -EMEDIUMTYPE);
        }
        for (size_t len = sizeof(good); len < whole + 8; len++) {
                m = made_up(&good, len);
                cr_expect_eq(psyne_f32vec_of(&m, &v), len == whole ? 0 : -EBADMSG, "%zu bytes", len);
        }
        h.magic++;
        m = made_up(&h, whole);
        cr_expect_eq(psyne_f32vec_of(&m, &v), -EMEDIUMTYPE);
        h = good;
        h.len = (UINT64_MAX >> 2) + 11; /* times 4 it is 40 again */
        m = made_up(&h, whole);
        cr_expect_eq(psyne_f32vec_of(&m, &v), -EBADMSG);
        h = good;
        h.elem_bytes = 0;
        m = made_up(&h, whole);
        cr_expect_eq(psyne_f32vec_of(&m, &v), -EBADMSG);
        h.elem_bytes = 8;
        h.len = 5;
        m = made_up(&h, whole);
        cr_expect_eq(psyne_f32vec_of(&m, &v), -EBADMSG, "floats have 4");
        h = good;
        h.dtype = 200;
        m = made_up(&h, whole);
        cr_expect_eq(psyne_f32vec_of(&m, &v), -EBADMSG);
        h = good;
        h.ndim = UINT32_MAX;
        m = made_up(&h, whole);
        cr_expect_eq(psyne_f32vec_of(&m, &v), -EMEDIUMTYPE);
        memmove(bytes + 24, bytes + 16, whole);
        m = made_up(&good, whole);
        memmove(bytes + 24, bytes + 16, whole);
        m.data = bytes + 24;
        cr_expect_eq(psyne_f32vec_of(&m, &v), -EBADMSG, "not at a multiple of 64");
}

Test(vector, takes_records_that_are_aligned) {
        struct psyne_f32vec v;

        close_channel();
        open_channel("memory://?size=1M&align=16");
        for (unsigned i = 0, refused = 0; i < 8; i++) {
                int r = psyne_f32vec_claim(p, 1, PSYNE_NOWAIT, &v);

                cr_assert(r == 0 || r == -EINVAL);
                refused += r < 0;
                if (r == 0)
                        cr_assert_eq((uintptr_t)v.data % PSYNE_VEC_ALIGN, 0u);
                if (r == 0)
                        cr_assert_eq(psyne_f32vec_commit(p, &v), 0);
                cr_assert_eq(psyne_send(p, 0, "0123456789abcde", 15, PSYNE_NOWAIT), 0);
                if (i == 7)
                        cr_expect_gt(refused, 0u);
        }
        close_channel();
        open_channel("memory://?size=1M&align=256");
        cr_expect_eq(psyne_f32vec_send(p, (const float[]){1, 2}, 2, PSYNE_NOWAIT), 0);
}

Test(vector, tensors_have_a_shape) {
        static const int64_t shape[3] = {2, 3, 4}, empty[2] = {5, 0}, negative[1] = {-1}, huge[3] = {1ll << 40, 1ll << 40, 0};
        int64_t eight[PSYNE_TENSOR_DIMS_MAX + 1] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
        struct psyne_tensor t;
        struct psyne_f32vec v;
        struct psyne_msg m;

        cr_assert_eq(psyne_tensor_claim(p, PSYNE_F32, shape, 3, PSYNE_NOWAIT, &t), 0);
        cr_expect_eq((uintptr_t)t.data % PSYNE_VEC_ALIGN, 0u);
        for (unsigned i = 0; i < 24; i++)
                ((float *)t.data)[i] = (float)i;
        cr_assert_eq(psyne_commit(p, &t.msg), 0);
        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
        cr_expect_eq(psyne_f32vec_of(&m, &v), -EMEDIUMTYPE);
        cr_assert_eq(psyne_tensor_of(&m, &t), 0, "%s", psyne_last_error());
        cr_expect(t.ndim == 3 && t.dtype == PSYNE_F32 && t.len == 24);
        cr_expect_arr_eq(t.shape, shape, sizeof(shape));
        cr_expect(t.strides[0] == 12 && t.strides[1] == 4 && t.strides[2] == 1);
        cr_expect_eq(((const float *)t.data)[1 * 12 + 2 * 4 + 3], 23.0f);
        cr_expect_eq(psyne_release(c, &m), 0);

        for (uint32_t ndim = 1; ndim <= PSYNE_TENSOR_DIMS_MAX; ndim++) {
                cr_assert_eq(psyne_tensor_claim(p, PSYNE_BF16, eight, ndim, PSYNE_NOWAIT, &t), 0);
                cr_expect_eq((uintptr_t)t.data % PSYNE_VEC_ALIGN, 0u);
                cr_assert_eq(psyne_commit(p, &t.msg), 0);
                cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
                cr_expect(psyne_tensor_of(&m, &t) == 0 && t.ndim == ndim && t.len == 1);
                cr_expect_eq(psyne_release(c, &m), 0);
        }
        cr_assert_eq(psyne_tensor_claim(p, PSYNE_U8, empty, 2, PSYNE_NOWAIT, &t), 0);
        cr_assert_eq(psyne_commit(p, &t.msg), 0);
        cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
        cr_expect(psyne_tensor_of(&m, &t) == 0 && t.len == 0);
        cr_expect_eq(psyne_release(c, &m), 0);

        cr_expect_eq(psyne_tensor_claim(p, PSYNE_U8, eight, PSYNE_TENSOR_DIMS_MAX + 1, PSYNE_NOWAIT, &t), -EINVAL);
        cr_expect_eq(psyne_tensor_claim(p, PSYNE_U8, eight, 0, PSYNE_NOWAIT, &t), -EINVAL);
        cr_expect_eq(psyne_tensor_claim(p, PSYNE_U8, negative, 1, PSYNE_NOWAIT, &t), -EINVAL);
        cr_expect_eq(psyne_tensor_claim(p, PSYNE_U8, huge, 3, PSYNE_NOWAIT, &t), -EMSGSIZE);
}

Test(vector, tensors_end_in_their_message) {
        const struct psyne_vec_head h = {.magic = PSYNE_VEC_MAGIC, .dtype = PSYNE_F32, .elem_bytes = 4, .len = 24, .ndim = 2};
        const size_t whole = sizeof(h) + 64 + 96;
        const struct {
                int64_t shape[2], strides[2];
                int r;
        } cases[] = {
                {{4, 6}, {6, 1}, 0},
                {{4, 6}, {1, 4}, 0}, /* column by column */
                {{24, 24}, {0, 1}, 0}, /* one row, many times */
                {{4, 6}, {7, 1}, -EBADMSG},
                {{25, 1}, {1, 1}, -EBADMSG},
                {{4, 6}, {-6, 1}, -EBADMSG},
                {{-4, 6}, {6, 1}, -EBADMSG},
                {{4, 0}, {INT64_MAX, INT64_MAX}, 0}, /* none of them */
                {{INT64_MAX, 2}, {INT64_MAX, 1}, -EBADMSG},
                {{3, 2}, {INT64_MAX, INT64_MAX}, -EBADMSG},
                {{1ll << 33, 1ll << 33}, {0, 0}, -EBADMSG},
        };

        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct psyne_msg m = made_up(&h, whole);
                struct psyne_tensor t;

                memcpy(bytes + 16 + sizeof(h), cases[i].shape, sizeof(cases[i].shape));
                memcpy(bytes + 16 + sizeof(h) + 16, cases[i].strides, sizeof(cases[i].strides));
                cr_expect_eq(psyne_tensor_of(&m, &t), cases[i].r, "case %u", i);
                m.len = sizeof(h) + 63;
                cr_expect_eq(psyne_tensor_of(&m, &t), -EBADMSG);
        }
}

Test(vector, one_struct_and_no_other) {
        const struct psyne_opts opts = sample_opts();
        const struct sample one = {.price = 1.5, .quantity = 3, .side = 1};
        struct psyne_opts other = opts;
        struct psyne_channel *second;
        struct sample *in = NULL;
        struct psyne_msg m;

        close_channel();
        open_as("memory://one-struct?size=64K", &opts, NULL);
        cr_assert_eq(sample_claim(p, PSYNE_NOWAIT, &m, &in), 0);
        *in = one;
        cr_assert_eq(psyne_commit(p, &m), 0);
        cr_assert_eq(sample_send(p, &one, PSYNE_NOWAIT), 0);
        for (unsigned i = 0; i < 2; i++) {
                cr_assert_eq(psyne_recv(c, &m, PSYNE_NOWAIT), 0);
                in = sample_of(&m);
                cr_assert_not_null(in);
                cr_expect(in->price == 1.5 && in->quantity == 3 && in->side == 1);
                m.len--;
                cr_expect_null(sample_of(&m));
                m.len++;
                m.type++;
                cr_expect_null(sample_of(&m));
                m.type--;
                cr_expect_eq(psyne_release(c, &m), 0);
        }
        cr_expect_eq(psyne_open("memory://one-struct", &opts, &second), 0);
        second = psyne_close(second);
        other.type_hash++;
        cr_expect_eq(psyne_open("memory://one-struct", &other, &second), -EMEDIUMTYPE);
        cr_expect_neq(psyne_schema("f32[]"), psyne_schema("f64[]"));
        cr_expect_neq(psyne_schema(""), 0u);
}
