// Work shared among threads, and where they wait for each other. Knows nothing of what is computed.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

// Where threads wait for each other. OpenMP's own stops waiting actively as soon as the process has more of its threads
// than cores, which costs more than the work between two barriers; this one gives the core up only after SPINS looks.
class Barrier {
   public:
    void wait(int threads) {
        if (threads == 1) return;
        const int round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int looks = 0; round_.load(std::memory_order_acquire) == round; looks++) {
            if (looks < SPINS)
                rest();
            else
                std::this_thread::yield();
        }
    }

   private:
    static constexpr int SPINS = 2000;
    static void rest() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    std::atomic<int> arrived_{0}, round_{0};
};

// Run `work(id, threads, barrier)` in so many threads.
template <class Work>
void in_parallel(int threads, Work work) {
    Barrier barrier;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
    work(omp_get_thread_num(), omp_get_num_threads(), barrier);
#else
    (void)threads;
    work(0, 1, barrier);
#endif
}

// The part of `count` that thread `id` of `threads` works on.
struct Span {
    int64_t first, end;
};
Span part(int64_t count, int id, int threads) { return {count * id / threads, count * (id + 1) / threads}; }

}  // namespace
