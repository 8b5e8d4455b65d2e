/* How long polling pays: what a sleep costs here, and nothing where there is no CPU to poll on. */
#include <criterion/criterion.h>
#include <sched.h>

#include "lib/internal.h"

static unsigned pin(unsigned n) {
        cpu_set_t all, some;
        unsigned left = n;

        cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
        CPU_ZERO(&some);
        for (unsigned cpu = 0; cpu < CPU_SETSIZE && left; cpu++)
                if (CPU_ISSET(cpu, &all)) {
                        CPU_SET(cpu, &some);
                        left--;
                }
        cr_assert_eq(sched_setaffinity(0, sizeof(some), &some), 0);
        return n - left;
}

Test(spin, costs_of_a_wake_are_measured_on_two_cpus) {
        int64_t took;

        if (pin(2) < 2)
                cr_skip_test("one CPU");
        took = measure_wake_ns();
        cr_assert(took >= 0 && took < 5000000, "%lld ns", (long long)took); /* 0: too loaded to tell; little: nobody slept */
        pin(1);
        cr_assert_eq(measure_wake_ns(), 0);
}

Test(spin, as_long_as_there_are_cpus) {
        cr_assert_eq(process_init(), 0);
        if (pin(2) < 2)
                cr_skip_test("one CPU");
        cr_assert(process_spin_ns() >= 2000 && process_spin_ns() <= 50000);
        process_spinning(1);
        cr_assert_gt(process_spin_ns(), 0);
        process_spinning(1); /* two CPUs, two that poll: a third would keep them from what they wait for */
        cr_assert_eq(process_spin_ns(), 0);
        process_spinning(-1);
        cr_assert_gt(process_spin_ns(), 0);
        pin(1);
        cr_assert_eq(process_spin_ns(), 0);
}
