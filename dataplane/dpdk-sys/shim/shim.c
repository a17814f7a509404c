#define _GNU_SOURCE
#include <dlfcn.h>

#include "shim.h"

int genie_dpdk_errno(void)
{
	return rte_errno;
}

unsigned int genie_dpdk_lcore_id(void)
{
	return rte_lcore_id();
}

uint16_t genie_dpdk_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t genie_dpdk_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

struct rte_mbuf *genie_dpdk_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int genie_dpdk_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs,
			       unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void genie_dpdk_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

uint64_t genie_dpdk_mbuf_tx_offload(uint64_t l2_bytes, uint64_t l3_bytes, uint64_t l4_bytes)
{
	return rte_mbuf_tx_offload(l2_bytes, l3_bytes, l4_bytes, 0, 0, 0, 0);
}

void genie_dpdk_shared_init(void *info, void (*freed)(void *, void *), void *opaque)
{
	struct rte_mbuf_ext_shared_info *shared = info;

	shared->free_cb = freed;
	shared->fcb_opaque = opaque;
	rte_mbuf_ext_refcnt_set(shared, 1);
}

void genie_dpdk_mbuf_attach(struct rte_mbuf *mbuf, void *start, uint64_t iova, uint16_t bytes,
			    void *info)
{
	rte_pktmbuf_attach_extbuf(mbuf, start, iova, bytes, info);
	mbuf->data_len = bytes;
	mbuf->pkt_len = bytes;
}

struct rte_mempool *genie_dpdk_pool_create_dense(const char *name, unsigned int mbufs,
						 unsigned int cache, uint16_t room, int node)
{
	struct rte_pktmbuf_pool_private shape = {.mbuf_data_room_size = room};
	struct rte_mempool *pool;
	int result;

	pool = rte_mempool_create_empty(name, mbufs, sizeof(struct rte_mbuf) + room, cache,
					sizeof(shape), node, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (pool == NULL)
		return NULL;
	result = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
	if (result == 0) {
		rte_pktmbuf_pool_init(pool, &shape);
		result = rte_mempool_populate_default(pool);
	}
	if (result < 0) {
		rte_mempool_free(pool);
		rte_errno = -result;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
}

uint32_t genie_dpdk_mbuf_pool_room(const struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_data_room_size(mbuf->pool) - RTE_PKTMBUF_HEADROOM;
}

/* EAL's function of that name, which is the next one after this library's. */
#define EAL_OWN(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static struct genie_dpdk_intr_hooks intr_hooks;

void genie_dpdk_intr_hook(const struct genie_dpdk_intr_hooks *hooks)
{
	intr_hooks = *hooks;
}

int genie_dpdk_intr_add(const struct rte_intr_handle *handle, rte_intr_callback_fn call,
			void *argument)
{
	return EAL_OWN(rte_intr_callback_register)(handle, call, argument);
}

int genie_dpdk_intr_remove(const struct rte_intr_handle *handle, rte_intr_callback_fn call,
			   void *argument)
{
	return EAL_OWN(rte_intr_callback_unregister)(handle, call, argument);
}

int genie_dpdk_intr_remove_later(const struct rte_intr_handle *handle, rte_intr_callback_fn call,
				 void *argument, rte_intr_unregister_callback_fn removed)
{
	return EAL_OWN(rte_intr_callback_unregister_pending)(handle, call, argument, removed);
}

GENIE_EXPORT int rte_intr_callback_register(const struct rte_intr_handle *handle,
					    rte_intr_callback_fn call, void *argument)
{
	return (intr_hooks.add ? intr_hooks.add : genie_dpdk_intr_add)(handle, call, argument);
}

GENIE_EXPORT int rte_intr_callback_unregister(const struct rte_intr_handle *handle,
					      rte_intr_callback_fn call, void *argument)
{
	return (intr_hooks.remove ? intr_hooks.remove : genie_dpdk_intr_remove)(handle, call,
										argument);
}

GENIE_EXPORT int rte_intr_callback_unregister_pending(const struct rte_intr_handle *handle,
						      rte_intr_callback_fn call, void *argument,
						      rte_intr_unregister_callback_fn removed)
{
	return (intr_hooks.remove_later ? intr_hooks.remove_later : genie_dpdk_intr_remove_later)(
		handle, call, argument, removed);
}

int genie_dpdk_link(uint16_t port, uint32_t *mbit_per_s, int *up)
{
	struct rte_eth_link link = {0};
	int result = rte_eth_link_get_nowait(port, &link);

	*mbit_per_s = link.link_speed;
	*up = link.link_status;
	return result;
}
