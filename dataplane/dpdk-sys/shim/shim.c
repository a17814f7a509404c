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

int genie_dpdk_link(uint16_t port, uint32_t *mbit_per_s, int *up)
{
	struct rte_eth_link link = {0};
	int result = rte_eth_link_get_nowait(port, &link);

	*mbit_per_s = link.link_speed;
	*up = link.link_status;
	return result;
}
