#include "gpudev.h"

/* The layout of 22.11 on a 64-bit machine, counted by hand from its source. */
#if UINTPTR_MAX == UINT64_MAX
#define AT(type, field, place) \
	_Static_assert(offsetof(struct type, field) == (place), #type "." #field " has moved")

_Static_assert(sizeof(struct rte_gpu_ops) == 9 * sizeof(void *), "rte_gpu_ops has grown");
AT(rte_gpu_ops, mem_alloc, 2 * 8);
AT(rte_gpu_ops, mem_register, 4 * 8);
AT(rte_gpu_ops, mem_cpu_map, 6 * 8);
AT(rte_gpu_ops, wmb, 8 * 8);

AT(rte_gpu, device, 0);
AT(rte_gpu, mpshared, 8);
AT(rte_gpu, ops, 16);
AT(rte_gpu, callbacks, 16 + 72);
AT(rte_gpu, process_state, 88 + 16);
AT(rte_gpu, process_private, 104 + 8);
_Static_assert(sizeof(struct rte_gpu) % RTE_CACHE_LINE_SIZE == 0, "rte_gpu is not padded");

AT(rte_gpu_info, name, 0);
AT(rte_gpu_info, context, 8);
AT(rte_gpu_info, dev_id, 16);
AT(rte_gpu_info, parent, 18);
AT(rte_gpu_info, processor_count, 20);
AT(rte_gpu_info, total_memory, 24);
AT(rte_gpu_info, page_size, 32);
AT(rte_gpu_info, numa_node, 40);

AT(rte_gpu_mpshared, dev_private, RTE_DEV_NAME_MAX_LEN);
AT(rte_gpu_mpshared, info, RTE_DEV_NAME_MAX_LEN + 8);
AT(rte_gpu_mpshared, process_refcnt, RTE_DEV_NAME_MAX_LEN + 8 + 48);
#endif
