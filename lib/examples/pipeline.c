#include <errno.h>
#include <psyne/psyne.h>
#include <stdio.h>

static int square(void *ctx, struct psyne_msg *m) {
        (void)ctx;
        *(int *)m->data *= *(int *)m->data; /* in the ring, where the sender wrote it */
        return 0;                           /* pass it on; more would remove it, a negative errno is an error */
}

static int only_even(void *ctx, struct psyne_msg *m) {
        (void)ctx;
        return *(int *)m->data % 2;
}

int main(void) {
        struct psyne_stage_opts two = {.struct_size = sizeof(two), .workers = 2}; /* order stays all the same */
        struct psyne_pipeline *p;
        struct psyne_msg m;

        if (psyne_pipeline_new(NULL, NULL, &p) < 0 || psyne_pipeline_stage(p, square, NULL, &two) < 0 ||
                psyne_pipeline_stage(p, only_even, NULL, NULL) < 0 || psyne_pipeline_start(p) < 0)
                return fprintf(stderr, "pipeline: %s\n", psyne_last_error()), 1;
        for (int i = 0; i < 10; i++)
                if (psyne_send(psyne_pipeline_input(p), 0, &i, sizeof(i), PSYNE_FOREVER) < 0)
                        return fprintf(stderr, "pipeline: %s\n", psyne_last_error()), 1;
        psyne_pipeline_stop(p, PSYNE_DRAIN); /* what was sent passes every stage first */
        while (psyne_recv(psyne_pipeline_output(p), &m, PSYNE_FOREVER) == 0) {
                printf("%d\n", *(const int *)m.data);
                psyne_release(psyne_pipeline_output(p), &m);
        }
        psyne_pipeline_free(p);
}
