/*
 * DPDK as the Rust half sees it: its inline functions as functions, its configuration structures
 * filled in from small records, and the proof that a frame is laid out as sys.rs says.
 */
#include "shim.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_log.h>
#include <rte_mbuf.h>

/*
 * struct Mbuf of sys.rs. Named fields only, so that releases which put them into anonymous
 * structures (24.11) pass or fail by the layout and not by the spelling.
 */
#define AT(field, offset) _Static_assert(offsetof(struct rte_mbuf, field) == (offset), #field)
#define WIDE(field, octets) \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->field) == (octets), #field)
AT(buf_addr, 0);
AT(data_off, 16);
WIDE(data_off, 2);
AT(refcnt, 18);
AT(nb_segs, 20);
WIDE(nb_segs, 2);
AT(ol_flags, 24);
WIDE(ol_flags, 8);
AT(pkt_len, 36);
WIDE(pkt_len, 4);
AT(data_len, 40);
WIDE(data_len, 2);
AT(vlan_tci, 42);
AT(buf_len, 54);
WIDE(buf_len, 2);
_Static_assert(sizeof(struct rte_mbuf) == 128, "two cache lines");
_Static_assert(RTE_PKTMBUF_HEADROOM >= 128, "rvs_io::frame::HEADROOM");
_Static_assert(RTE_MBUF_F_RX_VLAN_STRIPPED == UINT64_C(1) << 6, "sys::VLAN_STRIPPED");
_Static_assert(RTE_ETH_XSTATS_NAME_SIZE == 64, "names have 64 octets");
_Static_assert(sizeof(struct rvs_device_info) == 80, "sys::DeviceInfo");
_Static_assert(sizeof(struct rvs_device_setup) == 12, "sys::DeviceSetup");

#define FLOWS (RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP | \
	       RTE_ETH_RSS_NONFRAG_IPV4_SCTP | RTE_ETH_RSS_NONFRAG_IPV6_TCP | \
	       RTE_ETH_RSS_NONFRAG_IPV6_UDP | RTE_ETH_RSS_NONFRAG_IPV6_SCTP)
#define ONE_END (RTE_ETH_RSS_L3_SRC_ONLY | RTE_ETH_RSS_L3_DST_ONLY | \
		 RTE_ETH_RSS_L4_SRC_ONLY | RTE_ETH_RSS_L4_DST_ONLY)

/* Of an RSS key: 40 with most devices, 52 with some. */
#define KEY_OCTETS_MAX 64

int rvs_errno(void)
{
	return rte_errno;
}

int rvs_device_info(uint16_t device, struct rvs_device_info *info)
{
	struct rte_eth_dev_info found;
	struct rte_eth_link link;
	struct rte_ether_addr mac;
	const char *bus;
	int error = rte_eth_dev_info_get(device, &found);

	if (error != 0)
		return error;
	memset(info, 0, sizeof(*info));
	info->buffer_min = found.min_rx_bufsize;
	info->frame_max = found.max_rx_pktlen;
	info->node = rte_eth_dev_socket_id(device);
	info->mtu_min = found.min_mtu;
	info->mtu_max = found.max_mtu;
	info->rx_queues_max = found.max_rx_queues;
	info->tx_queues_max = found.max_tx_queues;
	info->rx_descriptors[0] = found.rx_desc_lim.nb_min;
	info->rx_descriptors[1] = found.rx_desc_lim.nb_max;
	info->rx_descriptors[2] = found.rx_desc_lim.nb_align;
	info->tx_descriptors[0] = found.tx_desc_lim.nb_min;
	info->tx_descriptors[1] = found.tx_desc_lim.nb_max;
	info->tx_descriptors[2] = found.tx_desc_lim.nb_align;
	info->table_entries = found.reta_size;
	/* By a key of ours, or it is of no use. */
	info->hashes_one_end = (found.flow_type_rss_offloads & ONE_END) == ONE_END &&
			       found.hash_key_size > 0 &&
			       found.hash_key_size <= KEY_OCTETS_MAX;
	info->hashes_flows = (found.flow_type_rss_offloads & FLOWS) != 0;
	if (rte_eth_macaddr_get(device, &mac) == 0)
		memcpy(info->mac, mac.addr_bytes, sizeof(info->mac));
	bus = rte_bus_name(rte_dev_bus(found.device));
	info->is_virtual = bus != NULL && strcmp(bus, "vdev") == 0;
	if (rte_eth_link_get_nowait(device, &link) == 0) {
		info->is_up = link.link_status == RTE_ETH_LINK_UP;
		if (link.link_speed != RTE_ETH_SPEED_NUM_UNKNOWN)
			info->speed_mbit = link.link_speed;
	}
	snprintf(info->driver, sizeof(info->driver), "%s", found.driver_name);
	return 0;
}

/* Addresses and ports of whichever end is asked for, as far as the device can. */
static uint64_t fields(uint8_t spread, uint64_t can)
{
	switch (spread) {
	case RVS_SPREAD_SOURCE:
		return (FLOWS & can) | RTE_ETH_RSS_L3_SRC_ONLY | RTE_ETH_RSS_L4_SRC_ONLY;
	case RVS_SPREAD_DESTINATION:
		return (FLOWS & can) | RTE_ETH_RSS_L3_DST_ONLY | RTE_ETH_RSS_L4_DST_ONLY;
	default:
		return FLOWS & can;
	}
}

int rvs_device_configure(uint16_t device, const struct rvs_device_setup *setup)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	uint8_t key[KEY_OCTETS_MAX];
	unsigned int at;
	int error = rte_eth_dev_info_get(device, &info);

	if (error != 0)
		return error;
	/* No offloads: tags and checksums stay in the frame, and a frame is one buffer. */
	memset(&conf, 0, sizeof(conf));
	if (setup->mtu != 0)
		conf.rxmode.mtu = setup->mtu;
	if (setup->spread != RVS_SPREAD_NONE) {
		for (at = 0; at < sizeof(key); at++)
			key[at] = setup->key_repeat[at % 2];
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = fields(setup->spread, info.flow_type_rss_offloads);
		if (info.hash_key_size > 0 && info.hash_key_size <= sizeof(key)) {
			conf.rx_adv_conf.rss_conf.rss_key = key;
			conf.rx_adv_conf.rss_conf.rss_key_len = info.hash_key_size;
		}
	}
	return rte_eth_dev_configure(device, setup->queues, setup->queues, &conf);
}

int rvs_rx_queue(uint16_t device, uint16_t queue, uint16_t descriptors, int node,
		 struct rte_mempool *pool)
{
	struct rte_eth_dev_info info;
	struct rte_eth_rxconf conf;
	int error = rte_eth_dev_info_get(device, &info);

	if (error != 0)
		return error;
	conf = info.default_rxconf;
	conf.offloads = 0;
	return rte_eth_rx_queue_setup(device, queue, descriptors, node, &conf, pool);
}

int rvs_tx_queue(uint16_t device, uint16_t queue, uint16_t descriptors, int node)
{
	struct rte_eth_dev_info info;
	struct rte_eth_txconf conf;
	int error = rte_eth_dev_info_get(device, &info);

	if (error != 0)
		return error;
	conf = info.default_txconf;
	conf.offloads = 0;
	return rte_eth_tx_queue_setup(device, queue, descriptors, node, &conf);
}

int rvs_device_spread(uint16_t device, uint16_t entries, uint16_t queues)
{
	struct rte_eth_rss_reta_entry64 *table;
	unsigned int groups = (entries + RTE_ETH_RETA_GROUP_SIZE - 1) / RTE_ETH_RETA_GROUP_SIZE;
	unsigned int at;
	int error;

	table = calloc(groups, sizeof(*table));
	if (table == NULL)
		return -ENOMEM;
	for (at = 0; at < entries; at++) {
		unsigned int group = at / RTE_ETH_RETA_GROUP_SIZE;
		unsigned int place = at % RTE_ETH_RETA_GROUP_SIZE;

		table[group].mask |= UINT64_C(1) << place;
		/* plane::steering: 128 entries, which name the workers in turn. */
		table[group].reta[place] = at % 128 % queues;
	}
	error = rte_eth_dev_rss_reta_update(device, table, entries);
	free(table);
	return error;
}

int rvs_device_mac(uint16_t device, const uint8_t mac[6], int beside)
{
	struct rte_ether_addr address;
	int error = -ENOTSUP;

	memcpy(address.addr_bytes, mac, sizeof(address.addr_bytes));
	if (!beside)
		error = rte_eth_dev_default_mac_addr_set(device, &address);
	if (error == -ENOTSUP)
		error = rte_eth_dev_mac_addr_add(device, &address, 0);
	return error;
}

int rvs_device_counters(uint16_t device, char *names, uint64_t *values, unsigned int room)
{
	int count = rte_eth_xstats_get(device, NULL, 0);
	struct rte_eth_xstat_name *name;
	struct rte_eth_xstat *value;
	int at, got = -ENOMEM;

	if (count <= 0 || room == 0)
		return count;
	name = calloc(count, sizeof(*name));
	value = calloc(count, sizeof(*value));
	if (name != NULL && value != NULL)
		got = rte_eth_xstats_get(device, value, count);
	if (got > 0 && got <= count && rte_eth_xstats_get_names(device, name, count) == got) {
		for (at = 0; at < got && (unsigned int)at < room; at++) {
			memcpy(names + 64 * at, name[value[at].id].name, 64);
			values[at] = value[at].value;
		}
	}
	free(name);
	free(value);
	return got;
}

uint16_t rvs_rx_burst(uint16_t device, uint16_t queue, struct rte_mbuf **frames, uint16_t most)
{
	return rte_eth_rx_burst(device, queue, frames, most);
}

uint16_t rvs_tx_burst(uint16_t device, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_tx_burst(device, queue, frames, count);
}

struct rte_mbuf *rvs_frame_take(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void rvs_frame_give(struct rte_mbuf *frame)
{
	rte_pktmbuf_free(frame);
}

int rvs_frame_unstrip(struct rte_mbuf **frame)
{
	return rte_vlan_insert(frame);
}

static char *log_text;
static size_t log_octets;
static FILE *log_stream;

int rvs_log_capture(void)
{
	log_stream = open_memstream(&log_text, &log_octets);
	return log_stream == NULL ? -errno : rte_openlog_stream(log_stream);
}

unsigned int rvs_log_release(char *text, unsigned int room)
{
	size_t copied;

	rte_openlog_stream(NULL);
	if (log_stream == NULL)
		return 0;
	fclose(log_stream);
	log_stream = NULL;
	copied = log_octets < room ? log_octets : room;
	memcpy(text, log_text + (log_octets - copied), copied);
	free(log_text);
	return copied;
}

#ifdef RVS_RINGS
#include <rte_eth_ring.h>
#include <rte_ring.h>

int rvs_ring_device(const char *name, struct rte_ring **arriving, struct rte_ring **leaving,
		    unsigned int queues, int node)
{
	int device = rte_eth_from_rings(name, arriving, queues, leaving, queues,
					node < 0 ? 0 : (unsigned int)node);

	return device < 0 ? -rte_errno : device;
}

struct rte_ring *rvs_ring(const char *name, unsigned int frames, int node)
{
	return rte_ring_create(name, frames, node, RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);
}

int rvs_ring_push(struct rte_ring *ring, struct rte_mbuf *frame)
{
	return rte_ring_enqueue(ring, frame);
}

struct rte_mbuf *rvs_ring_pop(struct rte_ring *ring)
{
	void *frame = NULL;

	return rte_ring_dequeue(ring, &frame) == 0 ? frame : NULL;
}

unsigned int rvs_ring_count(const struct rte_ring *ring)
{
	return rte_ring_count(ring);
}
#endif
