/*
 * Arrays of numbers in messages (psyne/vector.h): where element 0 lies, and what is believed of a message that says it has some.
 *
 * A record's payload begins 16 bytes behind a multiple of its alignment, so a head of 48 bytes ends at one of 64, and shape and
 * strides are filled up to the next. What is read of a received head is read once: in a shared ring its writer may still be there.
 */
#include "psyne/vector.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"

_Static_assert(sizeof(struct psyne_vec_head) == 48, "with the record's 16 bytes one cache line");

size_t psyne_dtype_bytes(enum psyne_dtype dtype) {
        switch (dtype) {
        case PSYNE_I8:
        case PSYNE_U8:
                return 1;
        case PSYNE_I16:
        case PSYNE_U16:
        case PSYNE_F16:
        case PSYNE_BF16:
                return 2;
        case PSYNE_I32:
        case PSYNE_U32:
        case PSYNE_F32:
                return 4;
        case PSYNE_I64:
        case PSYNE_U64:
        case PSYNE_F64:
                return 8;
        }
        return 0;
}

/* Bytes in front of element 0. */
static size_t front_of(uint32_t ndim) {
        const size_t dims = ndim * 2 * sizeof(int64_t);

        return sizeof(struct psyne_vec_head) + (dims + PSYNE_VEC_ALIGN - 1) / PSYNE_VEC_ALIGN * PSYNE_VEC_ALIGN;
}

static int bytes_for(size_t n, size_t elem_bytes, uint32_t ndim, size_t *ret) {
        if (__builtin_mul_overflow(n, elem_bytes, ret) || __builtin_add_overflow(*ret, front_of(ndim), ret))
                return error_set(-EMSGSIZE, "%zu elements of %zu bytes are more than an address can tell", n, elem_bytes);
        return 0;
}

static int claim(struct psyne_producer *p, enum psyne_dtype dtype, size_t n, uint32_t ndim, int64_t timeout_ns, struct psyne_msg *ret) {
        const size_t elem_bytes = psyne_dtype_bytes(dtype);
        struct psyne_msg m;
        size_t bytes;
        int r;

        if (!elem_bytes)
                return error_set(-EINVAL, "%d is no kind of element (enum psyne_dtype)", (int)dtype);
        r = bytes_for(n, elem_bytes, ndim, &bytes);
        if (r == 0)
                r = psyne_claim(p, bytes, timeout_ns, &m);
        if (r < 0)
                return r;
        if (((uintptr_t)m.data + front_of(ndim)) % PSYNE_VEC_ALIGN) {
                (void)psyne_abort(p, &m);
                return error_set(-EINVAL, "elements cannot be aligned to 64 bytes in a channel whose records are not (align=64)");
        }
        *(struct psyne_vec_head *)m.data = (struct psyne_vec_head){
                .magic = PSYNE_VEC_MAGIC,
                .dtype = (uint16_t)dtype,
                .elem_bytes = (uint16_t)elem_bytes,
                .len = n,
                .ndim = ndim,
        };
        *ret = m;
        return 0;
}

static void describe(struct psyne_vec *v, size_t len) {
        const size_t front = front_of(0);

        v->data = (char *)v->msg.data + front;
        v->len = len;
        v->cap = (v->msg.cap - front) / v->elem_bytes;
}

int psyne_vec_claim(struct psyne_producer *p, enum psyne_dtype dtype, size_t n, int64_t timeout_ns, struct psyne_vec *ret) {
        struct psyne_msg m;
        int r;

        if (!p || !ret)
                return error_set(-EINVAL, "psyne_vec_claim: no producer or no result");
        r = claim(p, dtype, n, 0, timeout_ns, &m);
        if (r < 0)
                return r;
        *ret = (struct psyne_vec){.dtype = (uint32_t)dtype, .elem_bytes = (uint32_t)psyne_dtype_bytes(dtype), .msg = m};
        describe(ret, n);
        return 0;
}

int psyne_vec_resize(struct psyne_producer *p, struct psyne_vec *v, size_t n) {
        size_t bytes;
        int r;

        if (!p || !v || !v->elem_bytes)
                return error_set(-EINVAL, "psyne_vec_resize: no producer or no vector");
        r = bytes_for(n, v->elem_bytes, 0, &bytes);
        if (r == 0)
                r = psyne_resize(p, &v->msg, bytes);
        if (r == 0)
                describe(v, n);
        return r;
}

int psyne_vec_commit(struct psyne_producer *p, struct psyne_vec *v) {
        /* Looked at before psyne_commit() does, because the head is written first. */
        if (!p || !v || !v->elem_bytes || !v->msg.opaque[2] || v->msg.cap < front_of(0))
                return error_set(-EINVAL, "psyne_vec_commit: no producer, or not an open claim");
        if (v->len > (v->msg.cap - front_of(0)) / v->elem_bytes)
                return error_set(-EINVAL, "psyne_vec_commit: %zu elements where there is room for %zu", v->len, v->cap);
        ((struct psyne_vec_head *)v->msg.data)->len = v->len;
        v->msg.len = front_of(0) + v->len * v->elem_bytes;
        return psyne_commit(p, &v->msg);
}

int psyne_vec_abort(struct psyne_producer *p, struct psyne_vec *v) {
        if (!p || !v)
                return error_set(-EINVAL, "psyne_vec_abort: no producer or no vector");
        return psyne_abort(p, &v->msg);
}

int psyne_vec_send(struct psyne_producer *p, enum psyne_dtype dtype, const void *from, size_t n, int64_t timeout_ns) {
        struct psyne_vec v;
        int r;

        if (n && !from)
                return error_set(-EINVAL, "psyne_vec_send: elements to send, and no memory");
        r = psyne_vec_claim(p, dtype, n, timeout_ns, &v);
        if (r < 0)
                return r;
        if (n)
                memcpy(v.data, from, n * v.elem_bytes);
        return psyne_vec_commit(p, &v);
}

/* The head of a message with @ndim_min to @ndim_max dimensions; its lengths are the message's. */
static int look(const struct psyne_msg *m, uint32_t ndim_min, uint32_t ndim_max, struct psyne_vec_head *ret) {
        struct psyne_vec_head h;
        size_t front;

        if (!m || !m->data)
                return error_set(-EINVAL, "no message");
        if (m->len < sizeof(h))
                return error_set(-EMEDIUMTYPE, "a message of %zu bytes has no elements", m->len);
        memcpy(&h, m->data, sizeof(h));
        if (h.magic != PSYNE_VEC_MAGIC || h.ndim < ndim_min || h.ndim > ndim_max)
                return error_set(-EMEDIUMTYPE, ndim_max ? "this message is no tensor" : "this message is no vector");
        front = front_of(h.ndim);
        if (!h.elem_bytes || h.elem_bytes != psyne_dtype_bytes((enum psyne_dtype)h.dtype) || m->len < front ||
                (m->len - front) / h.elem_bytes != h.len || (m->len - front) % h.elem_bytes)
                return error_set(-EBADMSG, "%llu elements of kind %u and %u bytes do not make up a message of %zu bytes",
                        (unsigned long long)h.len, h.dtype, h.elem_bytes, m->len);
        if (((uintptr_t)m->data + front) % PSYNE_VEC_ALIGN)
                return error_set(-EBADMSG, "its elements do not lie at a multiple of 64 bytes: it was copied, or came from elsewhere");
        *ret = h;
        return 0;
}

int psyne_vec_of(const struct psyne_msg *m, enum psyne_dtype dtype, struct psyne_vec *ret) {
        struct psyne_vec_head h;
        int r;

        if (!ret)
                return error_set(-EINVAL, "psyne_vec_of: no result");
        r = look(m, 0, 0, &h);
        if (r < 0)
                return r;
        if (h.dtype != (unsigned)dtype)
                return error_set(-EMEDIUMTYPE, "this message has elements of kind %u, not %d (enum psyne_dtype)", h.dtype, (int)dtype);
        *ret = (struct psyne_vec){
                .data = (char *)m->data + front_of(0),
                .len = (size_t)h.len,
                .cap = (size_t)h.len,
                .dtype = h.dtype,
                .elem_bytes = h.elem_bytes,
                .msg = *m,
        };
        ret->msg.cap = 0; /* nothing to commit */
        return 0;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

static int shape_len(const int64_t shape[], uint32_t ndim, size_t *ret) {
        size_t n = 1;
        bool empty = false;

        for (uint32_t i = 0; i < ndim; i++) {
                if (shape[i] < 0)
                        return -EINVAL;
                empty |= shape[i] == 0;
                if (shape[i] && __builtin_mul_overflow(n, (size_t)shape[i], &n))
                        return -EMSGSIZE;
        }
        *ret = empty ? 0 : n;
        return 0;
}

int psyne_tensor_claim(struct psyne_producer *p, enum psyne_dtype dtype, const int64_t shape[], uint32_t ndim,
        int64_t timeout_ns, struct psyne_tensor *ret) {
        struct psyne_tensor t = {.dtype = (uint32_t)dtype, .ndim = ndim};
        size_t step = 1;
        char *dims;
        int r;

        if (!p || !ret || !shape || !ndim || ndim > PSYNE_TENSOR_DIMS_MAX)
                return error_set(-EINVAL, "psyne_tensor_claim: no producer, no result, or not 1 to %u dimensions", PSYNE_TENSOR_DIMS_MAX);
        r = shape_len(shape, ndim, &t.len);
        if (r < 0)
                return error_set(r, r == -EINVAL ? "a dimension of a tensor is negative" : "so many elements there cannot be");
        r = claim(p, dtype, t.len, ndim, timeout_ns, &t.msg);
        if (r < 0)
                return r;
        for (uint32_t i = ndim; i-- > 0;) {
                t.shape[i] = shape[i];
                t.strides[i] = (int64_t)step;
                step *= shape[i] ? (size_t)shape[i] : 1;
        }
        dims = (char *)t.msg.data + sizeof(struct psyne_vec_head);
        memcpy(dims, t.shape, ndim * sizeof(int64_t));
        memcpy(dims + ndim * sizeof(int64_t), t.strides, ndim * sizeof(int64_t));
        t.data = (char *)t.msg.data + front_of(ndim);
        t.msg.len = front_of(ndim) + t.len * psyne_dtype_bytes(dtype);
        *ret = t;
        return 0;
}

int psyne_tensor_of(const struct psyne_msg *m, struct psyne_tensor *ret) {
        struct psyne_vec_head h;
        struct psyne_tensor t;
        const char *dims;
        uint64_t last = 0;
        size_t n;
        int r;

        if (!ret)
                return error_set(-EINVAL, "psyne_tensor_of: no result");
        r = look(m, 1, PSYNE_TENSOR_DIMS_MAX, &h);
        if (r < 0)
                return r;
        t = (struct psyne_tensor){.data = (char *)m->data + front_of(h.ndim), .len = (size_t)h.len, .dtype = h.dtype, .ndim = h.ndim, .msg = *m};
        dims = (const char *)m->data + sizeof(h);
        memcpy(t.shape, dims, h.ndim * sizeof(int64_t));
        memcpy(t.strides, dims + h.ndim * sizeof(int64_t), h.ndim * sizeof(int64_t));
        if (shape_len(t.shape, t.ndim, &n) < 0)
                return error_set(-EBADMSG, "a tensor's shape is nonsense");
        for (uint32_t i = 0; n && i < t.ndim; i++) {
                uint64_t reach; /* a negative stride reaches far */

                if (__builtin_mul_overflow((uint64_t)t.shape[i] - 1, (uint64_t)t.strides[i], &reach) ||
                        __builtin_add_overflow(last, reach, &last))
                        return error_set(-EBADMSG, "a tensor's strides are nonsense");
        }
        if (n && last >= h.len)
                return error_set(-EBADMSG, "a tensor's last element lies outside of its message");
        *ret = t;
        return 0;
}

/* FNV-1a. */
uint64_t psyne_schema(const char *text) {
        uint64_t h = 0xcbf29ce484222325ull;

        for (; text && *text; text++)
                h = (h ^ (unsigned char)*text) * 0x100000001b3ull;
        return h ? h : 1;
}
