/*
 * vector.h: arrays of numbers as messages, built where they will be read.
 *
 *      struct psyne_f32vec v;
 *
 *      r = psyne_f32vec_claim(p, 1000, timeout_ns, &v);       room for 1000 floats, in the ring
 *      v.data[0] = ...; v.len = 900;                          elements, never bytes
 *      r = psyne_f32vec_commit(p, &v);
 *
 *      r = psyne_recv(c, &m, timeout_ns);
 *      r = psyne_f32vec_of(&m, &v);                           a view of it; -EMEDIUMTYPE: no floats
 *      psyne_release(c, &m);                                  and the view ends
 *
 * Lengths are in elements; psyne_f32vec_bytes() says how many bytes that is. Element 0 lies at a multiple of 64 bytes, so
 * that loads of a whole SIMD register or cache line are aligned: a record's payload starts 16 bytes behind such a place, and
 * the 48 up to the next hold what a receiver checks (struct psyne_vec_head). That takes a channel whose records are aligned
 * to 64 bytes, as is the default; with less the calls say -EINVAL.
 *
 * Nothing is allocated; what psyne_claim() and its siblings say of threads, blocking and errors holds. There are functions for
 * f32, f64, i8, u8 (bytes), i16, u16, i32, u32, i64 and u64, and psyne_vec_... for what is known at run time only.
 *
 * PSYNE_DEFINE_MSG(name, struct type, id) makes calls for messages that are one struct: name_claim(), name_send(), name_of(),
 * and name_opts() for psyne_open(), so that programs whose struct differs do not meet.
 */
#ifndef PSYNE_VECTOR_H
#define PSYNE_VECTOR_H
#include <stdint.h>

#include "psyne.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* What elements are. The numbers stand in messages. */
enum psyne_dtype {
        PSYNE_I8 = 1,
        PSYNE_U8,
        PSYNE_I16,
        PSYNE_U16,
        PSYNE_I32,
        PSYNE_U32,
        PSYNE_I64,
        PSYNE_U64,
        PSYNE_F32,
        PSYNE_F64,
        PSYNE_F16, /* in tensors: what C has no type for */
        PSYNE_BF16,
};

#define PSYNE_VEC_ALIGN 64u
#define PSYNE_VEC_MAGIC 0x50563031u /* in the host's byte order: another one's is another number */
#define PSYNE_TENSOR_DIMS_MAX 8u

/* In front of element 0, or of a tensor's shape and strides. */
struct psyne_vec_head {
        uint32_t magic;
        uint16_t dtype;      /* enum psyne_dtype */
        uint16_t elem_bytes;
        uint64_t len;        /* elements */
        uint32_t ndim;       /* 0: a vector. Else int64_t shape[ndim] and strides[ndim] follow, and the elements at the next 64 */
        uint32_t reserved[7];
};

/* Elements of whatever kind. data to msg are what a claim or _of() found; only len is the caller's to change. */
struct psyne_vec {
        void *data;
        size_t len, cap; /* elements */
        uint32_t dtype, elem_bytes;
        struct psyne_msg msg;
};

size_t psyne_dtype_bytes(enum psyne_dtype dtype); /* [any] of one element; 0: no such kind */

/*
 *   _claim    room for @n elements; len is @n                  -EINVAL, -EMSGSIZE, and psyne_claim()'s
 *   _resize   room for @n, what was written is kept, len is @n -ENOSPC, -EMSGSIZE, and psyne_resize()'s
 *   _commit   the first len of them are sent, as msg.type      -EINVAL: len is more than cap; and psyne_commit()'s
 *   _abort    nothing is sent
 *   _of       a view of a received message, which stays the caller's to release, and with that ends.
 *             -EMEDIUMTYPE: it has no such elements; -EBADMSG: it says so, and its lengths are nonsense
 */
int psyne_vec_claim(struct psyne_producer *p, enum psyne_dtype dtype, size_t n, int64_t timeout_ns, struct psyne_vec *ret);
int psyne_vec_resize(struct psyne_producer *p, struct psyne_vec *v, size_t n);
int psyne_vec_commit(struct psyne_producer *p, struct psyne_vec *v);
int psyne_vec_abort(struct psyne_producer *p, struct psyne_vec *v);
int psyne_vec_send(struct psyne_producer *p, enum psyne_dtype dtype, const void *from, size_t n, int64_t timeout_ns);
int psyne_vec_of(const struct psyne_msg *m, enum psyne_dtype dtype, struct psyne_vec *ret);

/* The same for one kind of element, and with it _at: element i, or NULL if there is none; and _bytes, of all len. */
#define PSYNE_DEFINE_VEC(name, type_of_it, dtype_of_it) \
        struct psyne_##name##vec { \
                __extension__ union { \
                        struct psyne_vec vec; \
                        __extension__ struct { \
                                type_of_it *data; \
                                size_t len, cap; /* elements */ \
                        }; \
                }; \
        }; \
        static inline int psyne_##name##vec_claim(struct psyne_producer *p, size_t n, int64_t timeout_ns, \
                struct psyne_##name##vec *ret) { \
                return psyne_vec_claim(p, dtype_of_it, n, timeout_ns, &ret->vec); \
        } \
        static inline int psyne_##name##vec_resize(struct psyne_producer *p, struct psyne_##name##vec *v, size_t n) { \
                return psyne_vec_resize(p, &v->vec, n); \
        } \
        static inline int psyne_##name##vec_commit(struct psyne_producer *p, struct psyne_##name##vec *v) { \
                return psyne_vec_commit(p, &v->vec); \
        } \
        static inline int psyne_##name##vec_abort(struct psyne_producer *p, struct psyne_##name##vec *v) { \
                return psyne_vec_abort(p, &v->vec); \
        } \
        static inline int psyne_##name##vec_send(struct psyne_producer *p, const type_of_it *from, size_t n, int64_t timeout_ns) { \
                return psyne_vec_send(p, dtype_of_it, from, n, timeout_ns); \
        } \
        static inline int psyne_##name##vec_of(const struct psyne_msg *m, struct psyne_##name##vec *ret) { \
                return psyne_vec_of(m, dtype_of_it, &ret->vec); \
        } \
        static inline type_of_it *psyne_##name##vec_at(const struct psyne_##name##vec *v, size_t i) { \
                return i < v->len ? &v->data[i] : NULL; \
        } \
        static inline size_t psyne_##name##vec_bytes(const struct psyne_##name##vec *v) { \
                return v->len * sizeof(type_of_it); \
        }

PSYNE_DEFINE_VEC(i8, int8_t, PSYNE_I8)
PSYNE_DEFINE_VEC(u8, uint8_t, PSYNE_U8)
PSYNE_DEFINE_VEC(i16, int16_t, PSYNE_I16)
PSYNE_DEFINE_VEC(u16, uint16_t, PSYNE_U16)
PSYNE_DEFINE_VEC(i32, int32_t, PSYNE_I32)
PSYNE_DEFINE_VEC(u32, uint32_t, PSYNE_U32)
PSYNE_DEFINE_VEC(i64, int64_t, PSYNE_I64)
PSYNE_DEFINE_VEC(u64, uint64_t, PSYNE_U64)
PSYNE_DEFINE_VEC(f32, float, PSYNE_F32)
PSYNE_DEFINE_VEC(f64, double, PSYNE_F64)

/*
 * Tensors: elements by shape and strides, both counted in elements, as DLPack has them. A claim lays them row by row; a view
 * may have any strides whose elements all lie in the message.
 */
struct psyne_tensor {
        void *data;
        size_t len;        /* elements */
        uint32_t dtype, ndim;
        int64_t shape[PSYNE_TENSOR_DIMS_MAX], strides[PSYNE_TENSOR_DIMS_MAX];
        struct psyne_msg msg;
};
int psyne_tensor_claim(struct psyne_producer *p, enum psyne_dtype dtype, const int64_t shape[], uint32_t ndim,
        int64_t timeout_ns, struct psyne_tensor *ret); /* then psyne_commit(p, &ret->msg), or psyne_abort() */
int psyne_tensor_of(const struct psyne_msg *m, struct psyne_tensor *ret);

/* A hash of a description, for psyne_opts.type_hash: both ends have to have been given the same text. Never 0. [any] */
uint64_t psyne_schema(const char *text);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

/*
 * PSYNE_DEFINE_MSG(name, type, id): messages of psyne_msg.type @id that are one @type. C only. (Its names end in _, for it is
 * expanded among those of its user, who may mind shadows.)
 *   name_schema()  a hash of the type's name, size and alignment, and the id
 *   name_opts()    for psyne_open() of a channel that carries nothing else: what differs is refused there (-EMEDIUMTYPE)
 *   name_claim()   *@ret is the message, to be written where it lies; then psyne_commit(p, m)
 *   name_send()    a copy of the caller's
 *   name_of()      the message as one, or NULL: another type, another size, or not aligned as a @type has to be
 */
#define PSYNE_DEFINE_MSG(name, type_of_it, id) \
        _Static_assert((id) != 0 && (uint64_t)(id) <= UINT32_MAX, "0 is for channels that carry many types"); \
        _Static_assert(_Alignof(type_of_it) <= 16, "payloads are aligned to 16 bytes"); \
        static inline uint64_t name##_schema(void) { \
                const uint64_t shape_[3] = {sizeof(type_of_it), _Alignof(type_of_it), (id)}; \
                uint64_t h_ = psyne_schema(#type_of_it); \
\
                for (unsigned i_ = 0; i_ < 3; i_++) \
                        h_ = (h_ ^ shape_[i_]) * 0x100000001b3ull; \
                return h_ ? h_ : 1; \
        } \
        static inline struct psyne_opts name##_opts(void) { \
                return (struct psyne_opts){.struct_size = sizeof(struct psyne_opts), .type_id = (id), .elem_bytes = sizeof(type_of_it), \
                        .type_hash = name##_schema()}; \
        } \
        static inline int name##_claim(struct psyne_producer *p_, int64_t timeout_ns_, struct psyne_msg *m_, type_of_it **ret_) { \
                int r_ = psyne_claim(p_, sizeof(type_of_it), timeout_ns_, m_); \
\
                if (r_ < 0) \
                        return r_; \
                m_->type = (id); \
                *ret_ = (type_of_it *)m_->data; \
                return 0; \
        } \
        static inline int name##_send(struct psyne_producer *p_, const type_of_it *from_, int64_t timeout_ns_) { \
                return psyne_send(p_, (id), from_, sizeof(*from_), timeout_ns_); \
        } \
        static inline type_of_it *name##_of(const struct psyne_msg *m_) { \
                return m_->type == (id) && m_->len == sizeof(type_of_it) && (uintptr_t)m_->data % _Alignof(type_of_it) == 0 \
                        ? (type_of_it *)m_->data \
                        : NULL; \
        }
#endif
