/* What an address may look like, and that everything else is refused with its own errno and a sentence naming it. */
#include "base/error.h"
#include "lib/uri.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

/* Refused text must leave the result alone, and the sentence must contain the word that helps. */
static void expect_refused(const char *text, int error, const char *word) {
        struct uri u, before;
        int r;

        memset(&u, 0xa5, sizeof(u));
        before = u;
        error_clear();
        r = uri_parse(text, &u);
        cr_expect_eq(r, error, "%s: %d (%s) instead of %d", text ? text : "NULL", r, error_get(), error);
        cr_expect_not_null(
                strstr(error_get(), word), "%s: no \"%s\" in \"%s\"", text ? text : "NULL", word, error_get());
        cr_expect_eq(memcmp(&u, &before, sizeof(u)), 0, "%s: result touched", text ? text : "NULL");
}

static struct uri expect_parsed(const char *text) {
        struct uri u;
        int r;

        memset(&u, 0xa5, sizeof(u));
        r = uri_parse(text, &u);
        cr_assert_eq(r, 0, "%s: %d, %s", text, r, error_get());
        return u;
}

Test(uri, splits_scheme_directory_and_name) {
        static const struct {
                const char *text;
                enum uri_scheme scheme;
                const char *dir, *name;
        } cases[] = {
                {"memory://", URI_MEMORY, "", ""},
                {"memory://bench", URI_MEMORY, "", "bench"},
                {"ipc://a", URI_IPC, "", "a"},
                {"ipc://A-z_0.9", URI_IPC, "", "A-z_0.9"},
                {"ipc:///run/psyne/cam0", URI_IPC, "/run/psyne", "cam0"},
                {"ipc:////x//y", URI_IPC, "//x/", "y"},
                {"ipc:///d%20%C3%A9%3F%25/n", URI_IPC, "/d \303\251?%", "n"},
                {"ipc://%61%62", URI_IPC, "", "ab"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct uri u = expect_parsed(cases[i].text);

                cr_expect_eq(u.scheme, cases[i].scheme, "%s", cases[i].text);
                cr_expect_str_eq(u.dir, cases[i].dir, "%s", cases[i].text);
                cr_expect_str_eq(u.name, cases[i].name, "%s", cases[i].text);
                cr_expect_eq(u.set, 0, "%s", cases[i].text);
        }
}

Test(uri, refuses_what_is_no_address) {
        expect_refused(NULL, -EINVAL, "NULL");
        expect_refused("", -EINVAL, "starts with");
        expect_refused("name", -EINVAL, "starts with");
        expect_refused("ipc:name", -EINVAL, "starts with");
        expect_refused("tcp://:1/x?preset=throughput&inline=1", -EINVAL, "preset=throughput is inline=0");
        expect_refused("ipc://x?zerocopy=never", -EINVAL, "tcp:// only");
        expect_refused("ipc:/name", -EINVAL, "starts with");
        expect_refused("shm://name", -EINVAL, "shm://name");
        expect_refused("IPC://name", -EINVAL, "IPC://name");
        expect_refused(" ipc://name", -EINVAL, "starts with");
        expect_refused("tcp://", -EINVAL, "HOST:PORT");
        expect_refused("tcp://name", -EINVAL, "HOST:PORT");
        expect_refused("tcp://host/name", -EINVAL, "HOST:PORT");
        expect_refused("tcp://host:/name", -EINVAL, "HOST:PORT");
        expect_refused("tcp://:/name", -EINVAL, "HOST:PORT");
        expect_refused("tcp://::1:4711/name", -EINVAL, "[ ]");
        expect_refused("tcp://[::1/name", -EINVAL, "HOST:PORT");
        expect_refused("tcp://[::1]4711/name", -EINVAL, "HOST:PORT");
        expect_refused("tcp://host:47 11/name", -EINVAL, "no port");
        expect_refused("tcp://host:0123456789012345678901234567890123/name", -EINVAL, "port");
        expect_refused("tcp://host:4711/a/b", -EINVAL, "slash");
        expect_refused("tcp://host:4711/name?role=both", -EINVAL, "connect, listen");
        expect_refused("ipc://name?role=listen", -EINVAL, "tcp://");
        expect_refused("ipc://name#x", -EINVAL, "fragment");
}

Test(uri, takes_hosts_and_ports_apart) {
        static const struct {
                const char *text, *host, *port, *name;
                enum uri_role role;
        } cases[] = {
                {"tcp://:4711/name", "", "4711", "name", URI_ROLE_LISTEN},
                {"tcp://:4711", "", "4711", "default", URI_ROLE_LISTEN},
                {"tcp://:0/", "", "0", "default", URI_ROLE_LISTEN},
                {"tcp://*:4711/name", "*", "4711", "name", URI_ROLE_LISTEN},
                {"tcp://0.0.0.0:4711/name", "0.0.0.0", "4711", "name", URI_ROLE_LISTEN},
                {"tcp://[::]:4711/name", "::", "4711", "name", URI_ROLE_LISTEN},
                {"tcp://[::1]:4711/name", "::1", "4711", "name", URI_ROLE_CONNECT},
                {"tcp://example.org:psyne/name", "example.org", "psyne", "name", URI_ROLE_CONNECT},
                {"tcp://127.0.0.1:4711/name?role=listen", "127.0.0.1", "4711", "name", URI_ROLE_LISTEN},
                {"tcp://:4711/name?role=connect&sndbuf=1M&rcvbuf=64K&resume=5s", "", "4711", "name", URI_ROLE_CONNECT},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct uri u = expect_parsed(cases[i].text);

                cr_expect_eq(u.scheme, URI_TCP, "%s", cases[i].text);
                cr_expect_str_eq(u.host, cases[i].host, "%s", cases[i].text);
                cr_expect_str_eq(u.port, cases[i].port, "%s", cases[i].text);
                cr_expect_str_eq(u.name, cases[i].name, "%s", cases[i].text);
                cr_expect_eq(u.role, cases[i].role, "%s", cases[i].text);
        }
}

Test(uri, refuses_bad_names) {
        expect_refused("ipc://", -EINVAL, "missing");
        expect_refused("ipc://?size=1M", -EINVAL, "missing");
        expect_refused("ipc:///dir/", -EINVAL, "missing");
        expect_refused("ipc:///name", -EINVAL, "directory");
        expect_refused("ipc://.hidden", -EINVAL, "dot");
        expect_refused("ipc:///dir/..", -EINVAL, "dot");
        expect_refused("ipc://%2e", -EINVAL, "dot");
        expect_refused("ipc://dir/name", -EINVAL, "slash");
        expect_refused("ipc://dir%2Fname", -EINVAL, "slash");
        expect_refused("memory:///name", -EINVAL, "slash");
        expect_refused("ipc://a b", -EINVAL, "letters");
        expect_refused("ipc://a%20b", -EINVAL, "letters");
        expect_refused("ipc://na\303\257ve", -EINVAL, "letters");
        expect_refused("ipc://a&b", -EINVAL, "letters");
        expect_refused("ipc://a%3Fsize=1", -EINVAL, "letters"); /* an encoded ? does not start a query */
}

/* The limits themselves must pass, one more must not, and 255 bytes (a file name's limit) neither. */
Test(uri, limits_lengths) {
        static char text[20000], long_text[40000];
        struct uri u;

        memset(text, 0, sizeof(text));
        strcpy(text, "ipc://");
        memset(text + 6, 'n', 64);
        u = expect_parsed(text);
        cr_expect_eq(strlen(u.name), 64);
        text[6 + 64] = 'n';
        expect_refused(text, -ENAMETOOLONG, "64");
        memset(text + 6, 'n', 255);
        expect_refused(text, -ENAMETOOLONG, "64");

        memset(text, 0, sizeof(text));
        strcpy(text, "ipc://");
        for (unsigned i = 0; i < 64; i++)
                strcat(text, "%41"); /* 64 characters, 192 bytes */
        u = expect_parsed(text);
        cr_expect_eq(strlen(u.name), 64);

        memset(text, 0, sizeof(text));
        strcpy(text, "ipc:///");
        memset(text + 7, 'd', URI_DIR_MAX - 2); /* with the slash URI_DIR_MAX - 1 */
        strcat(text, "/name");
        u = expect_parsed(text);
        cr_expect_eq(strlen(u.dir), URI_DIR_MAX - 1);
        memset(text, 0, sizeof(text));
        strcpy(text, "ipc:///");
        memset(text + 7, 'd', URI_DIR_MAX - 1);
        strcat(text, "/name");
        expect_refused(text, -ENAMETOOLONG, "directory");

        memset(long_text, 'x', sizeof(long_text) - 1);
        expect_refused(long_text, -ENAMETOOLONG, "longer");
}

Test(uri, refuses_bad_percent_and_control_characters) {
        expect_refused("ipc://a%", -EINVAL, "hexadecimal");
        expect_refused("ipc://a%4", -EINVAL, "hexadecimal");
        expect_refused("ipc://a%4?size=1M", -EINVAL, "hexadecimal"); /* must not borrow from behind the ? */
        expect_refused("ipc://a%g1", -EINVAL, "hexadecimal");
        expect_refused("ipc://a%1g", -EINVAL, "hexadecimal");
        expect_refused("ipc://a%-1", -EINVAL, "hexadecimal");
        expect_refused("ipc://a%00b", -EINVAL, "%00");
        expect_refused("ipc:///d%00/b", -EINVAL, "%00");
        expect_refused("ipc://a?mode=spsc%00", -EINVAL, "%00");
        expect_refused("ipc://a%0a", -EINVAL, "%0A");
        expect_refused("ipc:///d%7f/b", -EINVAL, "%7F");
        expect_refused("ipc://a\n", -EINVAL, "0x0a");
        expect_refused("ipc://a?size=\t1", -EINVAL, "0x09");
        expect_refused("ipc://a\177", -EINVAL, "0x7f");
}

Test(uri, reads_every_option) {
        struct uri u = expect_parsed("tcp://:1/x?role=connect&sndbuf=1M&rcvbuf=64K&resume=5s&inline=1&checksum=off&quickack=1&zerocopy=never&preset=latency&key=%2Fetc/k%26y&size=16M&mode=mpmc&align=128&producers=3&consumers=64&type=7&elem=4"
                                     "&hash=0xDEADbeefcafef00d&huge=require&numa=never&uring=try&wait=block&perm=0660"
                                     "&linger=250ms&nothread=1&inplace=1&metrics=0&engine=futex&barrier=fence&group=far&behind=ejected&eject=2ms");

        cr_expect_eq(u.set, (UINT64_C(1) << URI_N_KEYS) - 1);
        cr_expect_eq(u.size_bytes, 16 << 20);
        cr_expect_eq(u.mode, URI_MODE_MPMC);
        cr_expect_eq(u.align_bytes, 128);
        cr_expect_eq(u.n_producers, 3);
        cr_expect_eq(u.n_consumers, 64);
        cr_expect_eq(u.type, 7);
        cr_expect_eq(u.elem_bytes, 4);
        cr_expect_eq(u.hash, 0xdeadbeefcafef00d);
        cr_expect_eq(u.huge, URI_REQUIRE);
        cr_expect_eq(u.numa, URI_NEVER);
        cr_expect_eq(u.uring, URI_TRY);
        cr_expect_eq(u.wait, URI_WAIT_BLOCK);
        cr_expect_eq(u.file_mode, 0660);
        cr_expect_eq(u.linger_ns, 250000000);
        cr_expect_eq(u.nothread, 1);
        cr_expect_eq(u.in_place, 1);
        cr_expect_eq(u.metrics, 0);
        cr_expect_eq(u.role, URI_ROLE_CONNECT);
        cr_expect_eq(u.send_buffer, 1 << 20);
        cr_expect_eq(u.receive_buffer, 64 << 10);
        cr_expect_eq(u.resume_ns, 5000000000u);
        cr_expect_eq(u.inlined, 1u);
        cr_expect_eq(u.unchecked, 1u);
        cr_expect_eq(u.quick_ack, 1u);
        cr_expect_eq(u.zerocopy, URI_NEVER);
        cr_expect_eq(u.preset, URI_PRESET_LATENCY);
        cr_expect_str_eq(u.group, "far");
        cr_expect_eq(u.behind, URI_BEHIND_EJECTED);
        cr_expect_eq(u.eject_ns, 2000000u);
        cr_expect_str_eq(u.key_file, "/etc/k&y");
        cr_expect_eq(u.engine, URI_ENGINE_FUTEX);
        cr_expect_eq(u.barrier, URI_BARRIER_FENCE);
}

Test(uri, says_which_options_were_given) {
        struct uri u = expect_parsed("memory://?metrics=0&%6Dode=%73psc");

        cr_expect_eq(u.set, (UINT64_C(1) << URI_METRICS) | (UINT64_C(1) << URI_MODE));
        cr_expect(uri_has(&u, URI_METRICS) && uri_has(&u, URI_MODE) && !uri_has(&u, URI_SIZE));
        cr_expect_eq(u.mode, URI_MODE_SPSC);
        cr_expect_eq(u.size_bytes, 0);
}

Test(uri, reads_numbers_to_their_limits) {
        cr_expect_eq(expect_parsed("ipc://x?size=1").size_bytes, 1);
        cr_expect_eq(expect_parsed("ipc://x?size=3K").size_bytes, 3072);
        cr_expect_eq(expect_parsed("ipc://x?size=2G").size_bytes, UINT64_C(2) << 30);
        cr_expect_eq(expect_parsed("ipc://x?size=18446744073709551615").size_bytes, UINT64_MAX);
        cr_expect_eq(expect_parsed("ipc://x?size=17179869183G").size_bytes, UINT64_C(17179869183) << 30);
        cr_expect_eq(expect_parsed("ipc://x?type=4294967295").type, UINT32_MAX);
        cr_expect_eq(expect_parsed("ipc://x?hash=0xffffffffffffffff").hash, UINT64_MAX);
        cr_expect_eq(expect_parsed("ipc://x?linger=0").linger_ns, 0);
        cr_expect_eq(expect_parsed("ipc://x?linger=7ns").linger_ns, 7);
        cr_expect_eq(expect_parsed("ipc://x?linger=7us").linger_ns, 7000);
        cr_expect_eq(expect_parsed("ipc://x?linger=7s").linger_ns, 7000000000);
        cr_expect_eq(expect_parsed("ipc://x?linger=9223372036854775807ns").linger_ns, INT64_MAX);
        cr_expect_eq(expect_parsed("ipc://x?perm=600").file_mode, 0600);
        cr_expect_eq(expect_parsed("ipc://x?perm=0666").file_mode, 0666);
}

Test(uri, refuses_bad_options) {
        expect_refused("ipc://x?", -EINVAL, "key=value");
        expect_refused("ipc://x?size", -EINVAL, "key=value");
        expect_refused("ipc://x?size=", -EINVAL, "key=value");
        expect_refused("ipc://x?=1", -EINVAL, "key=value");
        expect_refused("ipc://x?size=1&", -EINVAL, "key=value");
        expect_refused("ipc://x?&size=1", -EINVAL, "key=value");
        expect_refused("ipc://x?size=1&&type=1", -EINVAL, "key=value");
        expect_refused("ipc://x?sise=1", -EINVAL, "sise");
        expect_refused("ipc://x?SIZE=1", -EINVAL, "SIZE");
        expect_refused("ipc://x?a-key-that-is-longer-than-any-known-one-and-then-some=1", -EINVAL, "a-key-that");
        expect_refused("ipc://x?size=1&size=1", -EINVAL, "twice");
        expect_refused("ipc://x?size=1&%73ize=2", -EINVAL, "twice");
        expect_refused("ipc://x?metrics=0&metrics=0", -EINVAL, "twice"); /* also when the value is what it was anyway */
        expect_refused("ipc://x?size=1?type=2", -EINVAL, "size");
}

Test(uri, refuses_bad_values) {
        expect_refused("ipc://x?size=0", -ERANGE, "size=0");
        expect_refused("ipc://x?size=-1", -EINVAL, "size=-1");
        expect_refused("ipc://x?size=+1", -EINVAL, "bytes");
        expect_refused("ipc://x?size= 1", -EINVAL, "bytes");
        expect_refused("ipc://x?size=1 ", -EINVAL, "bytes");
        expect_refused("ipc://x?size=1k", -EINVAL, "bytes");
        expect_refused("ipc://x?size=1T", -EINVAL, "bytes");
        expect_refused("ipc://x?size=1KB", -EINVAL, "bytes");
        expect_refused("ipc://x?size=K", -EINVAL, "bytes");
        expect_refused("ipc://x?size=0x10", -EINVAL, "bytes");
        expect_refused("ipc://x?size=1.5M", -EINVAL, "bytes");
        expect_refused("ipc://x?size=18446744073709551616", -ERANGE, "64 bits");
        expect_refused("ipc://x?size=17179869184G", -ERANGE, "64 bits"); /* 2^64 */
        expect_refused("ipc://x?size=17179869185G", -ERANGE, "64 bits"); /* cut to 64 bits it would be 1G */
        expect_refused(
                "ipc://x?size=00000000000000000000000000000000000000000000000000000000000000001", -EINVAL, "longer");
        expect_refused("ipc://x?producers=0", -ERANGE, "producers=0");
        expect_refused("ipc://x?align=4G", -ERANGE, "align=4G");
        expect_refused("ipc://x?type=4294967296", -ERANGE, "4294967295");
        expect_refused("ipc://x?hash=0x", -EINVAL, "hash=0x");
        expect_refused("ipc://x?hash=0x10000000000000000", -ERANGE, "hash");
        expect_refused("ipc://x?hash=ff", -EINVAL, "0x");
        expect_refused("ipc://x?mode=MPSC", -EINVAL, "spsc, mpsc, spmc, mpmc, broadcast");
        expect_refused("ipc://x?mode=sp", -EINVAL, "mode=sp");
        expect_refused("ipc://x?huge=yes", -EINVAL, "never, try, require");
        expect_refused("ipc://x?wait=sleep", -EINVAL, "hybrid, spin, block");
        expect_refused("ipc://x?nothread=2", -EINVAL, "0, 1");
        expect_refused("ipc://x?engine=epoll", -EINVAL, "auto, uring, eventfd, futex");
        expect_refused("ipc://x?barrier=none", -EINVAL, "membarrier");
        expect_refused("ipc://x?perm=0680", -EINVAL, "octal");
        expect_refused("ipc://x?perm=rw", -EINVAL, "octal");
        expect_refused("ipc://x?perm=1600", -ERANGE, "perm=1600");
        expect_refused("ipc://x?perm=0440", -ERANGE, "0600 and 0666");
        expect_refused("ipc://x?perm=0700", -ERANGE, "0600 and 0666");
        expect_refused("ipc://x?perm=0777", -ERANGE, "0600 and 0666");
        expect_refused("ipc://x?perm=0611", -EINVAL, "execute");
        expect_refused("ipc://x?linger=5", -EINVAL, "ns, us, ms or s");
        expect_refused("ipc://x?linger=s", -EINVAL, "time");
        expect_refused("ipc://x?linger=1m", -EINVAL, "time");
        expect_refused("ipc://x?linger=-1s", -EINVAL, "time");
        expect_refused("ipc://x?linger=9223372036854775808ns", -ERANGE, "linger");
        expect_refused("ipc://x?linger=18446744073709551615s", -ERANGE, "linger");
}

/* Every prefix of a good address parses or is refused, without reading past its end (run under valgrind or ASan). */
Test(uri, survives_every_prefix) {
        static const char whole[] = "ipc:///dev/shm/%41?size=16M&mode=mpmc&linger=250ms&hash=0xff&perm=0660";

        for (size_t n = 0; n < sizeof(whole); n++) {
                char *text = strndup(whole, n);
                struct uri u;
                int r;

                error_clear();
                r = uri_parse(text, &u);
                cr_expect(r == 0 || ((r == -EINVAL || r == -ERANGE) && strcmp(error_get(), "no error") != 0), "%s", text);
                free(text);
        }
}
