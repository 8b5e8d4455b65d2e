/*
 * A pipeline in one process: stages as threads, on a channel of its own whose groups follow each other. Everything it
 * does can be done with psyne_consumer_opts.follows and in_place, in several processes; this saves the threads, the
 * names, the errors and the end.
 *
 * Draining needs no room and no order of its own: stages work in place, so each goes on until what was sent before the
 * stop has passed it, whether or not anybody reads the output meanwhile.
 */
#include "lib/internal.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/group.h"

#define WORKERS_MAX (LAYOUT_CONSUMERS_MAX - 1) /* and the output */
#define OUTPUT "output"
#define LETTER_NS 100000000ll /* between two looks at whether all is aborted, while nobody takes dead letters */

struct worker {
        struct psyne_pipeline *pipeline;
        struct stage *stage;
        struct psyne_consumer *c;   /* while it runs; lock */
        pthread_t thread;
        bool started, ready;        /* lock */
        int r;                      /* of its opening */
        uint64_t messages, removed, errors, dead_letters; /* the worker's, atomic */
        uint64_t waited_ns;         /* once it has ended */
};

struct stage {
        psyne_stage_fn fn;
        void *ctx;
        char name[LAYOUT_NAME_MAX + 1];
        struct psyne_stage_opts opts;
        cpu_set_t cpus;
        bool pinned;
        int32_t group;
        struct worker *workers;
};

struct psyne_pipeline {
        char uri[URI_DIR_MAX];
        struct psyne_opts opts;
        struct psyne_channel *ch;
        struct psyne_producer *input;
        struct psyne_consumer *output;
        struct stage *stages;
        unsigned n_stages, n_workers;
        bool started, running, joined; /* running: there are threads */
        pthread_mutex_t lock, joining, letters; /* letters: dead letters, whose producer is one thread's at a time */
        pthread_cond_t changed;
        int error;                     /* of the first stage that ended everything; lock */
        char sentence[160];
};

/*
 * Prepares a pipeline on a channel at @uri (NULL: memory://), which must be new to its stages; @opts as for psyne_open(),
 * mode and PSYNE_IN_PLACE are set. Nothing runs before psyne_pipeline_start(). -EINVAL, -ENAMETOOLONG, -ENOMEM.
 */
int psyne_pipeline_new(const char *uri, const struct psyne_opts *opts, struct psyne_pipeline **ret) {
        CANCEL_HOLD;
        struct psyne_pipeline *p;

        if (!ret || (opts && opts->struct_size != sizeof(*opts)))
                return error_set(-EINVAL, "psyne_pipeline_new: result or struct_size is missing");
        if (!uri)
                uri = "memory://";
        if (strlen(uri) >= sizeof(p->uri))
                return error_set(-ENAMETOOLONG, "psyne_pipeline_new: the address is too long");
        p = calloc(1, sizeof(*p));
        if (!p)
                return error_set(-ENOMEM, "no memory for a pipeline");
        if (opts)
                p->opts = *opts;
        p->opts.struct_size = sizeof(p->opts);
        p->opts.mode = PSYNE_BROADCAST;
        p->opts.flags |= PSYNE_IN_PLACE;
        snprintf(p->uri, sizeof(p->uri), "%s", uri);
        pthread_mutex_init(&p->lock, NULL);
        pthread_mutex_init(&p->joining, NULL);
        pthread_mutex_init(&p->letters, NULL);
        pthread_cond_init(&p->changed, NULL);
        *ret = p;
        return 0;
}

/*
 * Adds a stage behind those there are: @fn is called with each message, in place, and with @ctx, by opts->workers threads
 * (default 1) at once. It returns 0 to pass the message on, more to remove it, a negative errno for an error, which
 * opts->on_error decides about. -EBUSY: it was started; -EINVAL; -EUSERS: too many workers; -ENOMEM.
 */
int psyne_pipeline_stage(struct psyne_pipeline *p, psyne_stage_fn fn, void *ctx, const struct psyne_stage_opts *opts) {
        CANCEL_HOLD;
        unsigned workers = opts && opts->workers ? opts->workers : 1;
        struct stage *stages, *s;
        const char *name = opts ? opts->name : NULL;

        if (!p || !fn || (opts && opts->struct_size != sizeof(*opts)))
                return error_set(-EINVAL, "psyne_pipeline_stage: pipeline, function or struct_size is missing");
        if (p->started)
                return error_set(-EBUSY, "psyne_pipeline_stage: the pipeline runs");
        if (opts && (opts->on_error > PSYNE_STAGE_DEAD_LETTER || opts->wait > PSYNE_WAIT_BLOCK ||
                            (opts->on_error == PSYNE_STAGE_DEAD_LETTER && !opts->dead_letters) ||
                            (opts->cpus && (opts->cpus_bytes == 0 || opts->cpus_bytes > sizeof(s->cpus)))))
                return error_set(-EINVAL, "psyne_pipeline_stage: unknown strategy or error policy, no producer for dead letters, or a set of CPUs of no or too many bytes");
        if (name && (!uri_name_valid(name) || strlen(name) > LAYOUT_NAME_MAX || !strcmp(name, OUTPUT)))
                return error_set(-EINVAL, "psyne_pipeline_stage: a stage's name is a group's, and not \"" OUTPUT "\"");
        for (unsigned i = 0; name && i < p->n_stages; i++)
                if (!strcmp(p->stages[i].name, name))
                        return error_set(-EINVAL, "psyne_pipeline_stage: there is a stage \"%s\" already", name);
        if (workers > WORKERS_MAX - p->n_workers)
                return error_set(-EUSERS, "psyne_pipeline_stage: at most %u workers in all", WORKERS_MAX);
        stages = realloc(p->stages, (p->n_stages + 1) * sizeof(*stages));
        if (!stages)
                return error_set(-ENOMEM, "no memory for a stage");
        p->stages = stages;
        s = &stages[p->n_stages];
        *s = (struct stage){.fn = fn, .ctx = ctx, .group = -1, .workers = calloc(workers, sizeof(*s->workers))};
        if (!s->workers)
                return error_set(-ENOMEM, "no memory for a stage's workers");
        if (opts)
                s->opts = *opts;
        s->opts.workers = workers;
        if (s->opts.cpus) {
                memcpy(&s->cpus, s->opts.cpus, s->opts.cpus_bytes);
                s->pinned = true;
        }
        if (name)
                snprintf(s->name, sizeof(s->name), "%s", name);
        else
                snprintf(s->name, sizeof(s->name), "stage%u", p->n_stages + 1);
        p->n_stages++;
        p->n_workers += workers;
        return 0;
}

static void count(uint64_t *counter) {
        __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED); /* one writer */
}

/* Ends everything, for the first error. */
static void fail(struct psyne_pipeline *p, const struct stage *s, int r, const char *why) {
        pthread_mutex_lock(&p->lock);
        if (!p->error) {
                p->error = r;
                snprintf(p->sentence, sizeof(p->sentence), "stage \"%s\": %s", s->name, why);
        }
        pthread_mutex_unlock(&p->lock);
        (void)psyne_stop(p->ch, PSYNE_ABORT);
}

/* One message. False: the worker ends. */
static bool work(struct worker *w, struct psyne_msg *m) {
        struct stage *s = w->stage;
        int r = s->fn(s->ctx, m);

        count(&w->messages);
        if (r == 0) {
                r = psyne_release(w->c, m);
                if (r == 0)
                        return true;
                fail(w->pipeline, s, r, psyne_last_error()); /* a length beyond the capacity */
                return false;
        }
        if (r > 0) {
                count(&w->removed);
                return psyne_remove(w->c, m) == 0;
        }
        count(&w->errors);
        if (s->opts.on_error == PSYNE_STAGE_STOP) {
                fail(w->pipeline, s, r, strerror(-r));
                return false; /* the message goes back to the group */
        }
        if (s->opts.on_error == PSYNE_STAGE_DEAD_LETTER) {
                int e;

                pthread_mutex_lock(&w->pipeline->letters);
                do {
                        e = psyne_send(s->opts.dead_letters, m->type, m->data, m->len, LETTER_NS);
                } while ((e == -ETIME || e == -EINTR) && channel_stop_state(w->pipeline->ch) != 2);
                pthread_mutex_unlock(&w->pipeline->letters);
                if (e < 0 && channel_stop_state(w->pipeline->ch) == 2)
                        return false; /* all is aborted: that is not its error */
                if (e < 0) {
                        fail(w->pipeline, s, e, psyne_last_error());
                        return false;
                }
                count(&w->dead_letters);
        }
        return psyne_remove(w->c, m) == 0;
}

static void tell(struct worker *w, struct psyne_consumer *c, int r) {
        pthread_mutex_lock(&w->pipeline->lock);
        w->c = c;
        w->r = r;
        if (c)
                w->stage->group = (int32_t)c->group;
        w->ready = true;
        pthread_cond_broadcast(&w->pipeline->changed);
        pthread_mutex_unlock(&w->pipeline->lock);
}

static void *run(void *arg) {
        struct worker *w = arg;
        struct psyne_pipeline *p = w->pipeline;
        struct stage *s = w->stage;
        const struct psyne_consumer_opts opts = {
                .struct_size = sizeof(opts),
                .wait = s->opts.wait,
                .group = s->name,
                .follows = s == p->stages ? NULL : s[-1].name,
                .in_place = 1,
                .shared = s->opts.workers > 1,
        };
        struct psyne_consumer *c = NULL;
        struct psyne_msg m;
        int r = 0;

        if (s->pinned)
                r = -pthread_setaffinity_np(pthread_self(), sizeof(s->cpus), &s->cpus);
        if (r < 0)
                error_set(r, "stage \"%s\" cannot be put on its CPUs: %s", s->name, strerror(-r));
        else
                r = psyne_consumer_open(p->ch, &opts, &c);
        if (r < 0)
                fail(p, s, r, psyne_last_error());
        tell(w, c, r);
        if (r < 0)
                return NULL;
        for (;;) {
                r = psyne_recv(c, &m, PSYNE_FOREVER);
                if (r == 0 && work(w, &m))
                        continue;
                if (r == -EINTR || r == -EBADMSG) /* that lane is set aside, others go on */
                        continue;
                if (r < 0 && r != -EPIPE && r != -ESHUTDOWN)
                        fail(p, s, r, psyne_last_error());
                break;
        }
        pthread_mutex_lock(&p->lock);
        w->waited_ns = c->shared->receive_blocked_ns;
        w->c = NULL;
        pthread_mutex_unlock(&p->lock);
        (void)psyne_consumer_close(c);
        return NULL;
}

static int start_worker(struct psyne_pipeline *p, struct stage *s, struct worker *w) {
        sigset_t all, old;
        int r;

        w->pipeline = p;
        w->stage = s;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &old); /* signals are the application's */
        r = -pthread_create(&w->thread, NULL, run, w);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (r < 0)
                return error_set(r, "stage \"%s\": no thread: %s", s->name, strerror(-r));
        w->started = p->running = true;
        pthread_mutex_lock(&p->lock);
        while (!w->ready) /* the group of the next stage follows its group */
                pthread_cond_wait(&p->changed, &p->lock);
        r = w->r;
        if (r < 0)
                error_set(r, "%s", p->sentence);
        pthread_mutex_unlock(&p->lock);
        return r;
}

static int start(struct psyne_pipeline *p) {
        const struct psyne_producer_opts at_once = {.struct_size = sizeof(at_once), .linger_ns = 1};
        const struct psyne_consumer_opts last = {
                .struct_size = sizeof(last),
                .group = OUTPUT,
                .follows = p->n_stages ? p->stages[p->n_stages - 1].name : NULL,
        };
        int r;

        if (!p->opts.max_consumers)
                p->opts.max_consumers = p->n_workers + 1 < 8 ? 8 : p->n_workers + 1;
        r = psyne_open(p->uri, &p->opts, &p->ch);
        /* Before anything runs: to end what does, the channel has to be stopped, and that may be another's. */
        for (unsigned i = 0; r == 0 && i <= p->n_stages; i++) {
                const char *name = i < p->n_stages ? p->stages[i].name : OUTPUT;

                if (group_is_taken(p->ch, name))
                        r = error_set(-EBUSY, "%s has a stage \"%s\" already", p->uri, name);
        }
        for (unsigned i = 0; r == 0 && i < p->n_stages; i++)
                for (unsigned k = 0; r == 0 && k < p->stages[i].opts.workers; k++)
                        r = start_worker(p, &p->stages[i], &p->stages[i].workers[k]);
        if (r == 0)
                r = psyne_consumer_open(p->ch, &last, &p->output);
        if (r == 0)
                r = psyne_producer_open(p->ch, &at_once, &p->input);
        p->running |= r == 0;
        return r;
}

/* Of several that stop it, each waits until the threads have ended. */
static void join(struct psyne_pipeline *p) {
        pthread_mutex_lock(&p->joining);
        for (unsigned i = 0; i < p->n_stages && !p->joined; i++)
                for (unsigned k = 0; k < p->stages[i].opts.workers; k++)
                        if (p->stages[i].workers[k].started)
                                (void)pthread_join(p->stages[i].workers[k].thread, NULL);
        p->joined = true;
        pthread_mutex_unlock(&p->joining);
}

static void close_all(struct psyne_pipeline *p) {
        if (p->ch && p->ch->forked) { /* the threads are the parent's: only what they had here is freed */
                for (unsigned i = 0; i < p->n_stages; i++)
                        for (unsigned k = 0; k < p->stages[i].opts.workers; k++)
                                (void)psyne_consumer_close(p->stages[i].workers[k].c);
                p->joined = true;
        } else {
                if (p->running)
                        (void)psyne_stop(p->ch, PSYNE_ABORT);
                join(p);
        }
        (void)psyne_producer_close(p->input);
        (void)psyne_consumer_close(p->output);
        psyne_close(p->ch);
        p->input = NULL;
        p->output = NULL;
        p->ch = NULL;
}

/*
 * Makes the channel, starts every stage's threads and opens both ends for the caller. -EBUSY: it was started before, or
 * the address has stages already; otherwise what psyne_open(), psyne_consumer_open() and psyne_producer_open() say; on
 * failure nothing runs, and it can only be freed.
 */
int psyne_pipeline_start(struct psyne_pipeline *p) {
        CANCEL_HOLD;
        int r;

        if (!p)
                return error_set(-EINVAL, "psyne_pipeline_start: no pipeline");
        if (p->started)
                return error_set(-EBUSY, "psyne_pipeline_start: it was started before");
        p->started = true;
        r = start(p);
        if (r < 0) {
                char sentence[256];

                snprintf(sentence, sizeof(sentence), "%s", psyne_last_error());
                close_all(p);
                return error_set(r, "%s", sentence);
        }
        return 0;
}

/* The sending end: psyne_claim() and so on. The pipeline's; one thread's at a time. NULL before the start. */
struct psyne_producer *psyne_pipeline_input(struct psyne_pipeline *p) {
        return p ? p->input : NULL;
}

/* The receiving end: what has passed all stages, in the order in which it was sent. The pipeline's; one thread's at a
 * time. Somebody has to receive, or the ring is full at some time. NULL before the start. */
struct psyne_consumer *psyne_pipeline_output(struct psyne_pipeline *p) {
        return p ? p->output : NULL;
}

/*
 * Stops and waits for the stages' threads. With PSYNE_DRAIN what was sent before passes all stages first, and is there to
 * be received afterwards, until -ESHUTDOWN. [any] Returns 0, or the error of the stage that had ended everything
 * (PSYNE_STAGE_STOP). -EINVAL: it does not run.
 */
int psyne_pipeline_stop(struct psyne_pipeline *p, enum psyne_stop how) {
        CANCEL_HOLD;
        int r;

        if (!p || !p->ch)
                return error_set(-EINVAL, "psyne_pipeline_stop: no pipeline, or one that does not run");
        r = channel_check(p->ch);
        if (r < 0)
                return r;
        r = psyne_stop(p->ch, how);
        if (r < 0)
                return error_set(r, "psyne_pipeline_stop: how is one of enum psyne_stop");
        join(p);
        if (p->error < 0)
                return error_set(p->error, "%s", p->sentence);
        return 0;
}

/* What stage @i has done, and what waits in front of it. [any] -EINVAL: there is none, or the pipeline does not run. */
int psyne_pipeline_stats(struct psyne_pipeline *p, unsigned i, struct psyne_stage_stats *ret) {
        struct stage *s;

        if (!p || !ret || ret->struct_size != sizeof(*ret) || i >= p->n_stages || !p->ch)
                return error_set(-EINVAL, "psyne_pipeline_stats: no such stage, no result or struct_size, or it does not run");
        if (p->ch->forked)
                return error_set(-EOWNERDEAD, "this pipeline came through fork(); it belongs to the parent");
        s = &p->stages[i];
        *ret = (struct psyne_stage_stats){.struct_size = sizeof(*ret), .workers = s->opts.workers};
        snprintf(ret->name, sizeof(ret->name), "%s", s->name);
        pthread_mutex_lock(&p->lock);
        for (unsigned k = 0; k < s->opts.workers; k++) {
                const struct worker *w = &s->workers[k];

                ret->messages += __atomic_load_n(&w->messages, __ATOMIC_RELAXED);
                ret->removed += __atomic_load_n(&w->removed, __ATOMIC_RELAXED);
                ret->errors += __atomic_load_n(&w->errors, __ATOMIC_RELAXED);
                ret->dead_letters += __atomic_load_n(&w->dead_letters, __ATOMIC_RELAXED);
                ret->waited_ns += w->c ? __atomic_load_n(&w->c->shared->receive_blocked_ns, __ATOMIC_RELAXED) : w->waited_ns;
        }
        pthread_mutex_unlock(&p->lock);
        for (uint32_t lane = 0; s->group >= 0 && lane < p->ch->view.n_lanes; lane++) {
                const struct layout_view *v = &p->ch->view;
                const struct layout_lane *l = &v->lanes[lane];
                uint64_t at = group_position(v, (uint32_t)s->group, lane, true);
                uint64_t front = i && s[-1].group >= 0 ? group_position(v, (uint32_t)s[-1].group, lane, true) : layout_lane_tail(l);

                if (__atomic_load_n(&l->state, __ATOMIC_ACQUIRE) != LAYOUT_FREE && (int64_t)(front - at) > 0)
                        ret->backlog_bytes += front - at;
        }
        return 0;
}

/* Stops with PSYNE_ABORT if it runs, closes both ends and the channel. Returns NULL; accepts NULL. */
struct psyne_pipeline *psyne_pipeline_free(struct psyne_pipeline *p) {
        CANCEL_HOLD;
        if (!p)
                return NULL;
        close_all(p);
        for (unsigned i = 0; i < p->n_stages; i++)
                free(p->stages[i].workers);
        free(p->stages);
        pthread_mutex_destroy(&p->lock);
        pthread_mutex_destroy(&p->joining);
        pthread_mutex_destroy(&p->letters);
        pthread_cond_destroy(&p->changed);
        free(p);
        return NULL;
}
