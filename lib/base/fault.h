/*
 * Named stop points for the kill tests. Built with -Dfault_points=true, a process started with
 * PSYNE_FAULT=NAME[:K] kills itself with SIGKILL at the K-th passage of that point (PSYNE_FAULT_STOP=1: stops
 * itself with SIGSTOP instead); otherwise the macro is nothing at all.
 */
#ifndef PSYNE_BASE_FAULT_H
#define PSYNE_BASE_FAULT_H
#ifdef PSYNE_FAULT_POINTS
#ifdef __cplusplus
extern "C"
#endif
        void
        psyne_fault_point(const char *name);
#define FAULT_POINT(name) psyne_fault_point(name)
#else
#define FAULT_POINT(name) ((void)0)
#endif
#endif
