// The gather kernel for this machine's CPU: what CUDA's compiler has built in, played by a thread
// for each of a block. For tests.

#include <atomic>
#include <barrier>
#include <thread>
#include <vector>

struct uint4 {
    unsigned x, y, z, w;
};
struct Index {
    unsigned x;
};
static thread_local Index threadIdx, blockIdx;
static std::barrier<> *block;
#define __device__ static
#define __global__
#define __shared__ static
#define __syncthreads() block->arrive_and_wait()
#define __threadfence_system() std::atomic_thread_fence(std::memory_order_seq_cst)

#include "gather.cu"

// One launch, a block after the other. Only one at a time in a process.
extern "C" void genie_gather_on_cpu(u64 frames, u64 pieces, u64 verdicts, u32 count)
{
    std::barrier<> meeting(THREADS);
    block = &meeting;
    std::vector<std::thread> cast;
    for (u32 thread = 0; thread < THREADS; thread++)
        cast.emplace_back([=] {
            threadIdx.x = thread;
            for (blockIdx.x = 0; blockIdx.x < count; blockIdx.x++) {
                genie_gather((const Frame *)frames, (const Piece *)pieces, (u32 *)verdicts);
                __syncthreads();
            }
        });
    for (auto &thread : cast)
        thread.join();
}
