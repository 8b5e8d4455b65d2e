/*
 * A matrix sent and received where it lies, and handed to whoever understands DLPack (NumPy, PyTorch, ...) without a copy.
 *
 *      example-tensor
 *
 * DLPack's DLTensor is written down here so that its header is not needed; the fields and their order are its own. Its data may
 * be used until the message is released, which is what the deleter of a DLManagedTensor would do.
 */
#include <psyne/vector.h>
#include <stdio.h>

struct dl_tensor {
        void *data;
        struct {
                int32_t type, id; /* 1, 0: this computer's memory */
        } device;
        int32_t ndim;
        struct {
                uint8_t code, bits; /* 0 signed, 1 unsigned, 2 float, 4 bfloat */
                uint16_t lanes;
        } dtype;
        int64_t *shape, *strides; /* in elements */
        uint64_t byte_offset;
};

static struct dl_tensor describe(struct psyne_tensor *t) {
        static const uint8_t codes[] = {[PSYNE_I8] = 0, [PSYNE_I16] = 0, [PSYNE_I32] = 0, [PSYNE_I64] = 0, [PSYNE_U8] = 1,
                [PSYNE_U16] = 1, [PSYNE_U32] = 1, [PSYNE_U64] = 1, [PSYNE_F16] = 2, [PSYNE_F32] = 2, [PSYNE_F64] = 2, [PSYNE_BF16] = 4};

        return (struct dl_tensor){
                .data = t->data,
                .device = {1, 0},
                .ndim = (int32_t)t->ndim,
                .dtype = {codes[t->dtype], (uint8_t)(8 * psyne_dtype_bytes((enum psyne_dtype)t->dtype)), 1},
                .shape = t->shape,
                .strides = t->strides,
        };
}

/* What somebody else's library would do with it. */
static void print_rows(const struct dl_tensor *t) {
        for (int64_t i = 0; i < t->shape[0]; i++) {
                float sum = 0;

                for (int64_t k = 0; k < t->shape[1]; k++)
                        sum += ((const float *)t->data)[i * t->strides[0] + k * t->strides[1]];
                printf("row %d: %g\n", (int)i, (double)sum);
        }
}

int main(void) {
        static const int64_t shape[] = {3, 4};
        struct psyne_channel *ch;
        struct psyne_producer *p;
        struct psyne_consumer *c;
        struct psyne_tensor t;
        struct dl_tensor dl;
        struct psyne_msg m;

        if (psyne_open("memory://matrices", NULL, &ch) < 0 || psyne_producer_open(ch, NULL, &p) < 0 ||
                psyne_consumer_open(ch, NULL, &c) < 0 || psyne_tensor_claim(p, PSYNE_F32, shape, 2, PSYNE_FOREVER, &t) < 0)
                return fprintf(stderr, "tensor: %s\n", psyne_last_error()), 1;
        for (size_t i = 0; i < t.len; i++)
                ((float *)t.data)[i] = (float)i; /* in the ring, row by row */
        if (psyne_commit(p, &t.msg) < 0 || psyne_recv(c, &m, PSYNE_FOREVER) < 0 || psyne_tensor_of(&m, &t) < 0)
                return fprintf(stderr, "tensor: %s\n", psyne_last_error()), 1;
        dl = describe(&t);
        printf("%d dimensions, float%d, at a multiple of 64: %s\n", dl.ndim, dl.dtype.bits, (uintptr_t)dl.data % 64 ? "no" : "yes");
        print_rows(&dl);
        psyne_release(c, &m); /* and dl has ended */
        psyne_consumer_close(c);
        psyne_producer_close(p);
        psyne_close(ch);
}
