/*
 * The parser behind uri.h: split at "://" and "?", decode %XX piece by piece, look keys up in one table. The
 * order matters: pieces are split before they are decoded, so an encoded "?", "&" or "/" is never a separator;
 * and control characters are refused first of all, so any later sentence may quote the text as it stands.
 */
#include "lib/uri.h"

#include "base/error.h"
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define URI_TEXT_MAX 16384 /* bytes: the longest directory with every byte encoded, and room for a query */
#define URI_KEY_MAX 32     /* bytes with the end mark; the longest key has 9 */
#define URI_VALUE_MAX 64   /* bytes with the end mark; the longest sensible value is a 64-bit number */

/* How much of the user's text a sentence quotes. */
#define QUOTE "%.80s"

struct word {
        const char *text;
        uint32_t value;
};

struct key {
        const char *name;
        int (*parse)(const struct key *k, const char *value, uint64_t *ret);
        const struct word *words; /* for parse_word, ends with NULL */
        uint64_t min, max;
        size_t offset;
        size_t width; /* bytes of the field */
};

static bool is_digit(char c) {
        return c >= '0' && c <= '9';
}

static bool is_control(char c) {
        return (unsigned char)c < 0x20 || c == 0x7f;
}

static bool is_name_char(char c) {
        return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
}

/* Not isxdigit() and friends: those ask the locale. -1: not a digit. */
static int digit_value(char c) {
        if (is_digit(c))
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

/* Reads digits, at least one; no sign, no blanks. *end is behind the last. */
static int read_digits(const char *s, unsigned base, const char **end, uint64_t *ret) {
        const char *p = s;
        uint64_t v = 0;

        for (;; p++) {
                int d = digit_value(*p);

                if (d < 0 || (unsigned)d >= base)
                        break;
                if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, (uint64_t)d, &v))
                        return -ERANGE;
        }
        if (p == s)
                return -EINVAL;
        *end = p;
        *ret = v;
        return 0;
}

static int refuse_range(const struct key *k, const char *value) {
        if (k->max == UINT64_MAX)
                return error_set(-ERANGE, "%s=%s: must be at least %llu and fit 64 bits", k->name, value,
                        (unsigned long long)k->min);
        return error_set(-ERANGE, "%s=%s: must lie between %llu and %llu", k->name, value, (unsigned long long)k->min,
                (unsigned long long)k->max);
}

static int parse_number(const struct key *k, const char *value, uint64_t *ret) {
        bool hex = value[0] == '0' && value[1] == 'x';
        const char *end;
        int r;

        r = read_digits(hex ? value + 2 : value, hex ? 16 : 10, &end, ret);
        if (r == -ERANGE)
                return refuse_range(k, value);
        if (r < 0 || *end)
                return error_set(-EINVAL, "%s=%s: not a number (decimal, or hexadecimal after 0x)", k->name, value);
        return 0;
}

static int parse_bytes(const struct key *k, const char *value, uint64_t *ret) {
        unsigned shift = 0;
        const char *end;
        uint64_t v;
        int r;

        r = read_digits(value, 10, &end, &v);
        if (r == -ERANGE)
                return refuse_range(k, value);
        if (r == 0 && *end) {
                shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
                end += shift > 0;
        }
        if (r < 0 || *end)
                return error_set(
                        -EINVAL, "%s=%s: not a number of bytes (digits, then nothing, K, M or G)", k->name, value);
        if (v > UINT64_MAX >> shift)
                return refuse_range(k, value);
        *ret = v << shift;
        return 0;
}

/* The unit is required, because a bare number means milliseconds to one reader and seconds to the next. */
static int parse_duration(const struct key *k, const char *value, uint64_t *ret) {
        static const struct {
                const char *unit;
                uint64_t ns;
        } units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};
        const char *end;
        uint64_t v;
        int r;

        r = read_digits(value, 10, &end, &v);
        if (r == -ERANGE)
                return refuse_range(k, value);
        if (r == 0 && v == 0 && !*end) {
                *ret = 0;
                return 0;
        }
        for (size_t i = 0; r == 0 && i < sizeof(units) / sizeof(units[0]); i++) {
                if (strcmp(end, units[i].unit) != 0)
                        continue;
                if (__builtin_mul_overflow(v, units[i].ns, &v))
                        return refuse_range(k, value);
                *ret = v;
                return 0;
        }
        return error_set(-EINVAL, "%s=%s: not a time (digits, then ns, us, ms or s)", k->name, value);
}

static int parse_perm(const struct key *k, const char *value, uint64_t *ret) {
        const char *end;
        uint64_t v;
        int r;

        r = read_digits(value, 8, &end, &v);
        if (r == -ERANGE || (r == 0 && !*end && (v < 0600 || v > 0666)))
                return error_set(-ERANGE, "%s=%s: must lie between 0600 and 0666", k->name, value);
        if (r < 0 || *end)
                return error_set(-EINVAL, "%s=%s: not an octal file mode such as 0600 or 660", k->name, value);
        if (v & 0111)
                return error_set(-EINVAL, "%s=%s: nobody may execute a control file", k->name, value);
        *ret = v;
        return 0;
}

static int parse_word(const struct key *k, const char *value, uint64_t *ret) {
        char known[96] = "";

        for (const struct word *w = k->words; w->text; w++) {
                if (strcmp(w->text, value) == 0) {
                        *ret = w->value;
                        return 0;
                }
                assert(strlen(known) + strlen(w->text) + 3 <= sizeof(known));
                if (known[0])
                        strcat(known, ", ");
                strcat(known, w->text);
        }
        return error_set(-EINVAL, "%s=%s: must be one of %s", k->name, value, known);
}

static const struct word words_mode[] = {{"spsc", URI_MODE_SPSC}, {"mpsc", URI_MODE_MPSC}, {"spmc", URI_MODE_SPMC},
        {"mpmc", URI_MODE_MPMC}, {"broadcast", URI_MODE_BROADCAST}, {NULL, 0}};
static const struct word words_try[] = {{"never", URI_NEVER}, {"try", URI_TRY}, {"require", URI_REQUIRE}, {NULL, 0}};
static const struct word words_wait[] = {
        {"hybrid", URI_WAIT_HYBRID}, {"spin", URI_WAIT_SPIN}, {"block", URI_WAIT_BLOCK}, {NULL, 0}};
static const struct word words_engine[] = {
        {"auto", URI_ENGINE_AUTO}, {"uring", URI_ENGINE_URING}, {"eventfd", URI_ENGINE_EVENTFD}, {"futex", URI_ENGINE_FUTEX},
        {NULL, 0}};
static const struct word words_barrier[] = {
        {"auto", URI_BARRIER_AUTO}, {"fence", URI_BARRIER_FENCE}, {"membarrier", URI_BARRIER_MEMBARRIER}, {NULL, 0}};
static const struct word words_checksum[] = {{"on", 0}, {"off", 1}, {NULL, 0}};
static const struct word words_preset[] = {{"latency", URI_PRESET_LATENCY}, {"throughput", URI_PRESET_THROUGHPUT}, {NULL, 0}};
static const struct word words_behind[] = {{"blocks", URI_BEHIND_BLOCKS}, {"ejected", URI_BEHIND_EJECTED}, {NULL, 0}};
static const struct word words_role[] = {{"connect", URI_ROLE_CONNECT}, {"listen", URI_ROLE_LISTEN}, {NULL, 0}};
static const struct word words_bool[] = {{"0", 0}, {"1", 1}, {NULL, 0}};

#define FIELD(f) .offset = offsetof(struct uri, f), .width = sizeof(((struct uri *)NULL)->f)
#define NUMBER(n, f, lo, hi)                                                                                           \
        { .name = n, .parse = parse_number, .min = lo, .max = hi, FIELD(f) }
#define BYTES(n, f, hi)                                                                                                \
        { .name = n, .parse = parse_bytes, .min = 1, .max = hi, FIELD(f) }
#define WORD(n, f, w)                                                                                                  \
        { .name = n, .parse = parse_word, .words = w, .max = UINT32_MAX, FIELD(f) }

/* A written 0 is refused where option structs read 0 as "not asked": the two must not mean different things. */
static const struct key keys[URI_N_KEYS] = {
        [URI_SIZE] = BYTES("size", size_bytes, UINT64_MAX),
        [URI_MODE] = WORD("mode", mode, words_mode),
        [URI_ALIGN] = BYTES("align", align_bytes, UINT32_MAX),
        [URI_PRODUCERS] = NUMBER("producers", n_producers, 1, UINT32_MAX),
        [URI_CONSUMERS] = NUMBER("consumers", n_consumers, 1, UINT32_MAX),
        [URI_TYPE] = NUMBER("type", type, 0, UINT32_MAX),
        [URI_ELEM] = BYTES("elem", elem_bytes, UINT64_MAX),
        [URI_HASH] = NUMBER("hash", hash, 0, UINT64_MAX),
        [URI_HUGE] = WORD("huge", huge, words_try),
        [URI_NUMA] = WORD("numa", numa, words_try),
        [URI_URING] = WORD("uring", uring, words_try),
        [URI_WAIT] = WORD("wait", wait, words_wait),
        [URI_PERM] = {.name = "perm", .parse = parse_perm, .max = 0666, FIELD(file_mode)},
        [URI_LINGER] = {.name = "linger", .parse = parse_duration, .max = INT64_MAX, FIELD(linger_ns)},
        [URI_INPLACE] = WORD("inplace", in_place, words_bool),
        [URI_NOTHREAD] = WORD("nothread", nothread, words_bool),
        [URI_METRICS] = WORD("metrics", metrics, words_bool),
        [URI_ENGINE] = WORD("engine", engine, words_engine),
        [URI_BARRIER] = WORD("barrier", barrier, words_barrier),
        [URI_ROLE] = WORD("role", role, words_role),
        [URI_SNDBUF] = BYTES("sndbuf", send_buffer, INT32_MAX / 2),
        [URI_RCVBUF] = BYTES("rcvbuf", receive_buffer, INT32_MAX / 2),
        [URI_KEY] = {.name = "key", .max = UINT64_MAX}, /* text, see parse_pair() */
        [URI_INLINE] = WORD("inline", inlined, words_bool),
        [URI_ZEROCOPY] = WORD("zerocopy", zerocopy, words_try),
        [URI_CHECKSUM] = WORD("checksum", unchecked, words_checksum),
        [URI_PRESET] = WORD("preset", preset, words_preset),
        [URI_QUICKACK] = WORD("quickack", quick_ack, words_bool),
        [URI_GROUP] = {.name = "group", .max = UINT64_MAX}, /* text, as key is */
        [URI_BEHIND] = WORD("behind", behind, words_behind),
        [URI_EJECT] = {.name = "eject", .parse = parse_duration, .min = 1, .max = INT64_MAX, FIELD(eject_ns)},
        [URI_RESUME] = {.name = "resume", .parse = parse_duration, .max = INT64_MAX, FIELD(resume_ns)},
};
static_assert(URI_N_KEYS <= 64, "one bit of struct uri's set per key");

static const struct {
        const char *prefix;
        enum uri_scheme scheme;
} schemes[] = {{"memory://", URI_MEMORY}, {"ipc://", URI_IPC}, {"tcp://", URI_TCP}};

/* Copies n bytes with %XX undone and ends them with NUL. Needing more than cap is -ENAMETOOLONG, without a sentence. */
static int decode(const char *from, size_t n, char *to, size_t cap) {
        size_t used = 0;

        for (size_t i = 0; i < n; i++) {
                char c = from[i];

                if (c == '%') {
                        int high = n - i > 2 ? digit_value(from[i + 1]) : -1;
                        int low = n - i > 2 ? digit_value(from[i + 2]) : -1;

                        if (high < 0 || low < 0)
                                return error_set(-EINVAL,
                                        "\"%.*s\": %% must be followed by two hexadecimal digits (%%25 is %%)",
                                        n > 80 ? 80 : (int)n, from);
                        c = (char)(high * 16 + low);
                        if (is_control(c))
                                return error_set(-EINVAL,
                                        "\"%%%02X\" stands for a control character; there is no use for one here",
                                        (unsigned char)c);
                        i += 2;
                }
                if (used + 1 >= cap)
                        return -ENAMETOOLONG;
                to[used++] = c;
        }
        to[used] = '\0';
        return 0;
}

static int parse_pair(const char *pair, size_t n, struct uri *u) {
        char name[URI_KEY_MAX], text[URI_VALUE_MAX];
        const char *equals = memchr(pair, '=', n);
        const struct key *k = NULL;
        uint64_t value;
        void *field;
        unsigned i;
        int r;

        if (!equals || equals == pair || equals + 1 == pair + n)
                return error_set(
                        -EINVAL, "\"%.*s\" in the query: each option is written key=value", n > 80 ? 80 : (int)n, pair);

        r = decode(pair, (size_t)(equals - pair), name, sizeof(name));
        if (r < 0 && r != -ENAMETOOLONG)
                return r;
        for (i = 0; r == 0 && i < URI_N_KEYS; i++) {
                if (strcmp(keys[i].name, name) == 0) {
                        k = &keys[i];
                        break;
                }
        }
        if (!k)
                return error_set(-EINVAL, "unknown option \"%.*s\" in the query",
                        equals - pair > 80 ? 80 : (int)(equals - pair), pair);
        if (uri_has(u, i))
                return error_set(-EINVAL, "option %s is given twice", k->name);

        if (i == URI_KEY) {
                r = decode(equals + 1, (size_t)(pair + n - equals - 1), u->key_file, sizeof(u->key_file));
                if (r == 0)
                        u->set |= UINT64_C(1) << i;
                return r == -ENAMETOOLONG ? error_set(r, "the key file's path is longer than %d bytes", URI_DIR_MAX - 1) : r;
        }
        if (i == URI_GROUP) {
                r = decode(equals + 1, (size_t)(pair + n - equals - 1), u->group, sizeof(u->group));
                if (r == -EINVAL)
                        return r;
                if (r < 0 || !uri_name_valid(u->group))
                        return error_set(-EINVAL, "group: a name has at most %d of A-Z a-z 0-9 . _ - and does not start with a dot", URI_NAME_MAX);
                u->set |= UINT64_C(1) << i;
                return 0;
        }
        r = decode(equals + 1, (size_t)(pair + n - equals - 1), text, sizeof(text));
        if (r == -ENAMETOOLONG)
                return error_set(-EINVAL, "the value of option %s is longer than any valid one", k->name);
        if (r < 0)
                return r;
        r = k->parse(k, text, &value);
        if (r < 0)
                return r;
        if (value < k->min || value > k->max)
                return refuse_range(k, text);

        field = (char *)u + k->offset;
        if (k->width == sizeof(uint32_t))
                *(uint32_t *)field = (uint32_t)value;
        else
                *(uint64_t *)field = value;
        u->set |= UINT64_C(1) << i;
        return 0;
}

static int parse_query(const char *query, struct uri *u) {
        for (;;) {
                const char *end = strchrnul(query, '&');
                int r;

                r = parse_pair(query, (size_t)(end - query), u);
                if (r < 0)
                        return r;
                if (!*end)
                        return 0;
                query = end + 1;
        }
}

static int parse_name(const char *from, size_t n, struct uri *u) {
        int r;

        r = decode(from, n, u->name, sizeof(u->name));
        if (r == -ENAMETOOLONG)
                return error_set(r, "channel name \"%.16s...\" is too long: %d characters at most", from, URI_NAME_MAX);
        if (r < 0)
                return r;
        if (uri_name_valid(u->name))
                return 0;
        if (!u->name[0])
                return error_set(-EINVAL, "the channel name is missing");
        if (u->name[0] == '.')
                return error_set(-EINVAL, "channel name \"%s\" must not start with a dot", u->name);
        if (strchr(u->name, '/'))
                return error_set(-EINVAL,
                        "channel name \"%s\" must not contain a slash; a directory is written ipc:///DIR/NAME",
                        u->name);
        return error_set(-EINVAL, "channel name \"%s\": only letters, digits and . _ - are allowed", u->name);
}

/* The last slash separates directory and name. */
static int parse_path(const char *from, size_t n, struct uri *u) {
        const char *slash = memrchr(from, '/', n);
        size_t n_dir = (size_t)(slash - from);
        int r;

        if (n_dir == 0)
                return error_set(-EINVAL, "ipc:///NAME has no directory: write ipc://NAME or ipc:///DIR/NAME");
        r = decode(from, n_dir, u->dir, sizeof(u->dir));
        if (r == -ENAMETOOLONG)
                return error_set(r, "the directory's path is longer than %d bytes", URI_DIR_MAX - 1);
        if (r < 0)
                return r;
        return parse_name(slash + 1, n - n_dir - 1, u);
}

static bool is_port_char(char c) {
        return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

/* No host connects to these. */
static bool is_any_host(const char *host) {
        return !host[0] || strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

/* HOST:PORT/NAME, the host in brackets if it has colons. */
static int parse_authority(const char *from, size_t n, struct uri *u) {
        const char *slash = memchr(from, '/', n), *end = slash ? slash : from + n, *host = from, *host_end, *port;
        int r;

        if (host < end && *host == '[') {
                host++;
                host_end = memchr(host, ']', (size_t)(end - host));
                port = host_end ? host_end + 1 : end;
        } else
                port = host_end = memrchr(host, ':', (size_t)(end - host));
        if (!host_end || !port || port == end || *port != ':' || port + 1 == end)
                return error_set(-EINVAL, "\"" QUOTE "\": tcp:// is followed by HOST:PORT/NAME, the host in [] if it has colons",
                        from);
        if (*from != '[' && memchr(host, ':', (size_t)(host_end - host)))
                return error_set(-EINVAL, "\"" QUOTE "\": a host with colons is written in [ ]", from);
        r = decode(host, (size_t)(host_end - host), u->host, sizeof(u->host));
        if (r == -ENAMETOOLONG)
                return error_set(r, "a host's name has at most %d characters", URI_HOST_MAX);
        if (r < 0)
                return r;
        port++;
        if ((size_t)(end - port) > URI_PORT_MAX)
                return error_set(-EINVAL, "a port is a number or a service's name");
        for (const char *c = port; c < end; c++)
                if (!is_port_char(*c))
                        return error_set(-EINVAL, "\"%.*s\" is no port: a number or a service's name", (int)(end - port), port);
        memcpy(u->port, port, (size_t)(end - port));
        u->port[end - port] = '\0';
        if (slash && slash + 1 < from + n)
                return parse_name(slash + 1, n - (size_t)(slash + 1 - from), u);
        memcpy(u->name, "default", sizeof("default"));
        return 0;
}

bool uri_name_valid(const char *name) {
        size_t n = strnlen(name, URI_NAME_MAX + 1);

        if (n == 0 || n > URI_NAME_MAX || name[0] == '.')
                return false;
        for (size_t i = 0; i < n; i++) {
                if (!is_name_char(name[i]))
                        return false;
        }
        return true;
}

int uri_parse(const char *text, struct uri *ret) {
        struct uri u = {.scheme = URI_MEMORY};
        const char *rest = NULL, *query;
        size_t n;
        int r;

        if (!text)
                return error_set(-EINVAL, "the channel's address is NULL");
        n = strnlen(text, URI_TEXT_MAX + 1);
        if (n > URI_TEXT_MAX)
                return error_set(-ENAMETOOLONG, "the channel's address is longer than %d bytes", URI_TEXT_MAX);
        for (size_t i = 0; i < n; i++) {
                if (is_control(text[i]))
                        return error_set(-EINVAL, "byte %zu of the channel's address is the control character 0x%02x",
                                i, (unsigned char)text[i]);
        }
        if (strchr(text, '#'))
                return error_set(-EINVAL, "\"" QUOTE "\": an address has no #fragment (%%23 is #)", text);

        for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
                size_t n_prefix = strlen(schemes[i].prefix);

                if (strncmp(text, schemes[i].prefix, n_prefix) != 0)
                        continue;
                u.scheme = schemes[i].scheme;
                rest = text + n_prefix;
        }
        if (!rest)
                return error_set(-EINVAL, "\"" QUOTE "\": an address starts with memory://, ipc:// or tcp://", text);

        query = strchrnul(rest, '?');
        n = (size_t)(query - rest);
        if (u.scheme == URI_IPC && rest[0] == '/')
                r = parse_path(rest, n, &u);
        else if (u.scheme == URI_TCP)
                r = parse_authority(rest, n, &u);
        else if (u.scheme == URI_MEMORY && n == 0)
                r = 0; /* anonymous */
        else
                r = parse_name(rest, n, &u);
        if (r < 0)
                return r;
        if (*query) {
                r = parse_query(query + 1, &u);
                if (r < 0)
                        return r;
        }

        if (u.scheme != URI_TCP && u.set & URI_LINK_KEYS)
                return error_set(-EINVAL, "role, sndbuf, rcvbuf, resume, key, inline, preset, zerocopy, checksum, quickack, group, behind and eject are for tcp:// only");
        if (u.preset && uri_has(&u, URI_INLINE) && u.inlined != (u.preset == URI_PRESET_LATENCY))
                return error_set(-EINVAL, "preset=latency is inline=1, preset=throughput is inline=0");
        if (u.scheme == URI_TCP && !uri_has(&u, URI_ROLE))
                u.role = is_any_host(u.host) ? URI_ROLE_LISTEN : URI_ROLE_CONNECT;

        *ret = u;
        return 0;
}
