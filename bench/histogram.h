/* Durations in nanoseconds, counted in steps of 1.6 % at most: as many as there are, in 64 KiB. */

#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum { STEPS = 128 };

struct histogram {
    uint64_t total, most, counts[64 * STEPS];
};

static inline void record(struct histogram *into, uint64_t value) {
    int power = value < STEPS ? 0 : 63 - __builtin_clzll(value) - 6; /* value >> power is 64 to 127 */
    into->counts[(unsigned)power * STEPS + (value >> power)]++;
    into->total++;
    if (value > into->most) into->most = value;
}

/* The upper bound of the step that holds this share of all, never above the most; 0 when there is none. */
static inline double quantile(const struct histogram *of, double share) {
    uint64_t seen = 0, wanted = (uint64_t)((double)of->total * share);
    for (unsigned i = 0; i < 64 * STEPS; i++)
        if ((seen += of->counts[i]) > wanted) {
            uint64_t bound = (uint64_t)(i % STEPS + 1) << i / STEPS;
            return (double)(bound < of->most ? bound : of->most);
        }
    return 0;
}

#endif
