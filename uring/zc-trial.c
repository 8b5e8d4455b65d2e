/* See zc-trial.h. */
#include "uring/zc-trial.h"

static unsigned class_of(size_t bytes) {
        unsigned i = 0;

        for (bytes /= 2 * WIRE_LONG_BYTES; bytes && i + 1 < ZC_TRIAL_CLASSES; bytes /= 2)
                i++;
        return i;
}

bool zc_trial_open(const struct zc_trial *t, size_t bytes) {
        unsigned i = class_of(bytes);

        return bytes >= WIRE_LONG_BYTES && (t->class[i].n[0] < ZC_TRIAL_SAMPLES || t->class[i].n[1] < ZC_TRIAL_SAMPLES);
}

bool zc_trial_wants(const struct zc_trial *t, size_t bytes) {
        unsigned i = class_of(bytes);

        if (bytes < WIRE_LONG_BYTES)
                return false;
        if (zc_trial_open(t, bytes))
                return t->class[i].n[1] <= t->class[i].n[0];
        return t->class[i].best[1] < t->class[i].best[0];
}

void zc_trial_note(struct zc_trial *t, size_t bytes, bool without, int64_t ns) {
        unsigned i = class_of(bytes);
        uint64_t cost = bytes && ns > 0 ? (uint64_t)ns * 1000 / bytes : 0;

        if (!zc_trial_open(t, bytes))
                return;
        if (!t->class[i].n[without] || cost < t->class[i].best[without])
                t->class[i].best[without] = cost;
        t->class[i].n[without]++;
}

size_t zc_trial_from(const struct zc_trial *t) {
        size_t from = 0;

        for (unsigned i = ZC_TRIAL_CLASSES; i-- > 0;) {
                size_t least = (size_t)WIRE_LONG_BYTES << i;

                if (zc_trial_open(t, least)) /* none so long, or not enough of them */
                        continue;
                if (!zc_trial_wants(t, least))
                        break;
                from = least;
        }
        return from;
}
