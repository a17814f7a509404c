/*
 * What Rust sees of DPDK: the headers that bindgen reads, wrappers for functions that DPDK has
 * only as inlines or macros, and the places and masks that differ between releases.
 * No logic lives here.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_epoll.h>
#include <rte_ethdev.h>
#include <rte_interrupts.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>
#include <rte_version.h>

#define GENIE_EXPORT __attribute__((visibility("default")))

/* rte_errno is a thread-local macro. */
GENIE_EXPORT int genie_dpdk_errno(void);

/* So is the lcore's number. */
GENIE_EXPORT unsigned int genie_dpdk_lcore_id(void);

GENIE_EXPORT uint16_t genie_dpdk_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
					  uint16_t count);
GENIE_EXPORT uint16_t genie_dpdk_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
					  uint16_t count);

GENIE_EXPORT struct rte_mbuf *genie_dpdk_mbuf_alloc(struct rte_mempool *pool);
GENIE_EXPORT int genie_dpdk_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs,
					    unsigned int count);
GENIE_EXPORT void genie_dpdk_mbuf_free(struct rte_mbuf *mbuf);
GENIE_EXPORT uint64_t genie_dpdk_mbuf_tx_offload(uint64_t l2_bytes, uint64_t l3_bytes,
						 uint64_t l4_bytes);


/*
 * Memory that is not a pool's. `genie_dpdk_shared_init` makes `info`, GENIE_SHARED_BYTES long, the
 * shared part of all mbufs that are attached with it, with one reference, which is the caller's;
 * `genie_dpdk_mbuf_attach` lets a fresh mbuf describe `bytes` bytes of it as data and takes a
 * reference of which the caller has already counted (GENIE_SHARED_REFCNT, 16 bits, atomic).
 */
GENIE_EXPORT void genie_dpdk_shared_init(void *info, void (*freed)(void *, void *), void *opaque);
GENIE_EXPORT void genie_dpdk_mbuf_attach(struct rte_mbuf *mbuf, void *start, uint64_t iova,
					 uint16_t bytes, void *info);

/*
 * As rte_pktmbuf_pool_create, but mbufs follow one another without gaps, and have no device address:
 * for software drivers on ordinary pages, where DPDK otherwise lets no mbuf cross a page boundary
 * (and net_af_xdp sends nothing of what lies past the size that it computes without the gaps).
 */
GENIE_EXPORT struct rte_mempool *genie_dpdk_pool_create_dense(const char *name, unsigned int mbufs,
							      unsigned int cache, uint16_t room,
							      int node);

/* The data room of an mbuf's pool, without the headroom. */
GENIE_EXPORT uint32_t genie_dpdk_mbuf_pool_room(const struct rte_mbuf *mbuf);

/*
 * Interrupt callbacks. The shim comes before librte_eal in the order in which drivers' symbols are
 * looked up, so drivers call its rte_intr_callback_register and the like. These call `hooks`, once
 * given, and EAL's own functions until then. The genie_dpdk_intr_* are EAL's own.
 */
struct genie_dpdk_intr_hooks {
	int (*add)(const struct rte_intr_handle *handle, rte_intr_callback_fn call, void *argument);
	int (*remove)(const struct rte_intr_handle *handle, rte_intr_callback_fn call,
		      void *argument);
	int (*remove_later)(const struct rte_intr_handle *handle, rte_intr_callback_fn call,
			    void *argument, rte_intr_unregister_callback_fn removed);
};

GENIE_EXPORT void genie_dpdk_intr_hook(const struct genie_dpdk_intr_hooks *hooks);
GENIE_EXPORT int genie_dpdk_intr_add(const struct rte_intr_handle *handle,
				     rte_intr_callback_fn call, void *argument);
GENIE_EXPORT int genie_dpdk_intr_remove(const struct rte_intr_handle *handle,
					rte_intr_callback_fn call, void *argument);
GENIE_EXPORT int genie_dpdk_intr_remove_later(const struct rte_intr_handle *handle,
					      rte_intr_callback_fn call, void *argument,
					      rte_intr_unregister_callback_fn removed);

GENIE_EXPORT int genie_dpdk_link(uint16_t port, uint32_t *mbit_per_s, int *up);

/* Where the fields of an mbuf lie: later releases move them into unnamed unions. */
static const size_t GENIE_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr);
static const size_t GENIE_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off);
static const size_t GENIE_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs);
static const size_t GENIE_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags);
static const size_t GENIE_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len);
static const size_t GENIE_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len);
static const size_t GENIE_MBUF_RSS_HASH = offsetof(struct rte_mbuf, hash.rss);
static const size_t GENIE_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len);
static const size_t GENIE_MBUF_NEXT = offsetof(struct rte_mbuf, next);
static const size_t GENIE_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload);

/* The shared part of external buffers. */
static const size_t GENIE_SHARED_BYTES = sizeof(struct rte_mbuf_ext_shared_info);
static const size_t GENIE_SHARED_REFCNT = offsetof(struct rte_mbuf_ext_shared_info, refcnt);

/* Macros that bindgen can't evaluate. */
static const uint64_t GENIE_RX_CHECKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM |
					  RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t GENIE_RX_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t GENIE_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t GENIE_RX_BUFFER_SPLIT = RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT;
static const uint64_t GENIE_TX_CHECKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM |
					  RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t GENIE_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t GENIE_RSS_IP_UDP = RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP;
static const uint32_t GENIE_MQ_RX_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t GENIE_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;
static const uint64_t GENIE_MBUF_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t GENIE_MBUF_RX_IP_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t GENIE_MBUF_RX_IP_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t GENIE_MBUF_RX_IP_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t GENIE_MBUF_RX_L4_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t GENIE_MBUF_RX_L4_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t GENIE_MBUF_RX_L4_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t GENIE_MBUF_FOREIGN = RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT;
static const uint64_t GENIE_MBUF_TX_IPV4_UDP = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM |
					       RTE_MBUF_F_TX_UDP_CKSUM;
static const uint32_t GENIE_MBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t GENIE_LCORE_MAX = RTE_MAX_LCORE;
static const uint32_t GENIE_LCORE_NONE = LCORE_ID_ANY;
static const uint32_t GENIE_POOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE;
static const uint32_t GENIE_POOL_NAME_MAX = RTE_MEMPOOL_NAMESIZE;
static const int GENIE_SOCKET_ANY = SOCKET_ID_ANY;
static const uint32_t GENIE_VERSION_YEAR = RTE_VER_YEAR;
static const uint32_t GENIE_VERSION_MONTH = RTE_VER_MONTH;
static const int GENIE_IOVA_VA = RTE_IOVA_VA;
static const int GENIE_INTR_ADD = RTE_INTR_EVENT_ADD;
static const int GENIE_INTR_EXT = RTE_INTR_HANDLE_EXT;
