/*
 * DPDK 22.11 and later as Capsule 0.1.5 wants to see it, which was written for 19.11: inline
 * functions as functions, structures that changed filled in from records of lib.rs, and the proof
 * that the two structures into which Capsule looks by itself are laid out as lib.rs says.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#define AT(type, field, offset) _Static_assert(offsetof(struct type, field) == (offset), #field)
AT(rte_mbuf, buf_addr, 0);
AT(rte_mbuf, data_off, 16);
AT(rte_mbuf, pkt_len, 36);
AT(rte_mbuf, data_len, 40);
AT(rte_mbuf, buf_len, 54);
AT(rte_mbuf, pool, 56);
AT(rte_mempool, name, 0);
AT(rte_mempool, flags, 56);
AT(rte_mempool, socket_id, 60);
AT(rte_mempool, size, 64);
AT(rte_mempool, cache_size, 68);
_Static_assert(RTE_MEMPOOL_NAMESIZE == 26, "rte_mempool.name");
_Static_assert(RTE_MBUF_DEFAULT_BUF_SIZE == 2176, "RTE_MBUF_DEFAULT_BUF_SIZE");
_Static_assert(RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE == 0x10000, "DEV_TX_OFFLOAD_MBUF_FAST_FREE");
_Static_assert(RTE_ETH_RSS_IP == 0xa38c, "ETH_RSS_IP");
_Static_assert(RTE_ETH_RSS_TCP == 0x10410, "ETH_RSS_TCP");
_Static_assert(RTE_ETH_RSS_UDP == 0x20820, "ETH_RSS_UDP");
_Static_assert(RTE_ETH_RSS_SCTP == 0x1040, "ETH_RSS_SCTP");

/* rte_eth_dev_info of lib.rs. */
struct device_info {
	const char *driver_name;
	uint64_t rx_offload_capa;
	uint64_t tx_offload_capa;
	uint64_t flow_type_rss_offloads;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
};

/* rte_eth_stats of lib.rs. */
struct device_stats {
	uint64_t ibytes;
	uint64_t obytes;
	uint64_t imissed;
	uint64_t ierrors;
	uint64_t oerrors;
	uint64_t rx_nombuf;
};

int _rte_errno(void)
{
	return rte_errno;
}

struct rte_mbuf *_rte_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void _rte_pktmbuf_free(struct rte_mbuf *frame)
{
	rte_pktmbuf_free(frame);
}

int _rte_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **frames, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, frames, count);
}

void _rte_mempool_put_bulk(struct rte_mempool *pool, void *const *objects, unsigned int count)
{
	rte_mempool_put_bulk(pool, objects, count);
}

uint16_t _rte_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t most)
{
	return rte_eth_rx_burst(port, queue, frames, most);
}

uint16_t _rte_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, frames, count);
}

int capsule_device_info(uint16_t port, struct device_info *info)
{
	struct rte_eth_dev_info found;
	int error = rte_eth_dev_info_get(port, &found);

	if (error != 0)
		return error;
	info->driver_name = found.driver_name;
	info->rx_offload_capa = found.rx_offload_capa;
	info->tx_offload_capa = found.tx_offload_capa;
	info->flow_type_rss_offloads = found.flow_type_rss_offloads;
	info->max_rx_queues = found.max_rx_queues;
	info->max_tx_queues = found.max_tx_queues;
	return 0;
}

int capsule_configure(uint16_t port, uint16_t rx, uint16_t tx, int rss, uint64_t fields,
		      uint64_t tx_offloads)
{
	struct rte_eth_conf conf;

	memset(&conf, 0, sizeof(conf));
	if (rss) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = fields;
	}
	conf.txmode.offloads = tx_offloads;
	return rte_eth_dev_configure(port, rx, tx, &conf);
}

int capsule_stats(uint16_t port, struct device_stats *stats)
{
	struct rte_eth_stats found;
	int error = rte_eth_stats_get(port, &found);

	if (error != 0)
		return error;
	stats->ibytes = found.ibytes;
	stats->obytes = found.obytes;
	stats->imissed = found.imissed;
	stats->ierrors = found.ierrors;
	stats->oerrors = found.oerrors;
	stats->rx_nombuf = found.rx_nombuf;
	return 0;
}
