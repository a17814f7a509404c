/*
 * DPDK's gpudev as Rust sees it: what an application calls, and what a driver needs to register a
 * device. The driver's header is not installed before 23.03, nor by every distribution after; the
 * layout that it declares is the same in 22.11 to 25.11, and is written here.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <rte_dev.h>
#include <rte_gpudev.h>

#if __has_include(<gpudev_driver.h>) && __has_include(<dev_driver.h>)
#include <gpudev_driver.h>
#else

struct rte_gpu;

/* Each returns 0 or a negative error number. One that is NULL is an operation without effect. */
struct rte_gpu_ops {
	int (*dev_info_get)(struct rte_gpu *dev, struct rte_gpu_info *info);
	int (*dev_close)(struct rte_gpu *dev);
	int (*mem_alloc)(struct rte_gpu *dev, size_t size, unsigned int align, void **ptr);
	int (*mem_free)(struct rte_gpu *dev, void *ptr);
	int (*mem_register)(struct rte_gpu *dev, size_t size, void *ptr);
	int (*mem_unregister)(struct rte_gpu *dev, void *ptr);
	int (*mem_cpu_map)(struct rte_gpu *dev, size_t size, void *ptr_in, void **ptr_out);
	int (*mem_cpu_unmap)(struct rte_gpu *dev, void *ptr);
	int (*wmb)(struct rte_gpu *dev);
};

/* What all processes share; `dev_private` and `info` are the driver's to fill. */
struct rte_gpu_mpshared {
	char name[RTE_DEV_NAME_MAX_LEN];
	void *dev_private;
	struct rte_gpu_info info;
	uint16_t process_refcnt;
};

enum rte_gpu_state {
	RTE_GPU_STATE_UNUSED,
	RTE_GPU_STATE_INITIALIZED,
};

/* `ops` and `process_private` are the driver's to fill. */
struct rte_gpu {
	struct rte_device *device;
	struct rte_gpu_mpshared *mpshared;
	struct rte_gpu_ops ops;
	TAILQ_HEAD(rte_gpu_callback_list, rte_gpu_callback) callbacks;
	enum rte_gpu_state process_state;
	void *process_private;
} __attribute__((aligned(RTE_CACHE_LINE_SIZE)));

struct rte_gpu *rte_gpu_get_by_name(const char *name);
struct rte_gpu *rte_gpu_allocate(const char *name);
struct rte_gpu *rte_gpu_attach(const char *name);
void rte_gpu_complete_new(struct rte_gpu *dev);
int rte_gpu_release(struct rte_gpu *dev);
void rte_gpu_notify(struct rte_gpu *dev, enum rte_gpu_event event);

#endif

static const int16_t GENIE_GPU_ID_NONE = RTE_GPU_ID_NONE;
static const int16_t GENIE_GPU_ID_ANY = RTE_GPU_ID_ANY;
static const uint32_t GENIE_GPU_COMM_PACKETS_MAX = RTE_GPU_COMM_LIST_PKTS_MAX;
