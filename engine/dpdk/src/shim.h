/*
 * What the Rust half calls, and the records that both halves know.
 *
 * Records consist of fixed-width numbers, the widest first, so that there is one layout for them;
 * shim.c and sys.rs both assert their sizes. DPDK's own structures stay on the C side, where the
 * compiler reads them from the headers of the very release that is linked.
 */
#ifndef RVS_SHIM_H
#define RVS_SHIM_H

#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* What a device is and can do. */
struct rvs_device_info {
	uint32_t buffer_min;     /* octets of a receive buffer at least */
	uint32_t frame_max;      /* octets of a frame at most */
	int32_t node;            /* NUMA node, -1 if it has none */
	uint32_t speed_mbit;     /* of the link, 0 if unknown */
	uint16_t mtu_min;
	uint16_t mtu_max;
	uint16_t rx_queues_max;
	uint16_t tx_queues_max;
	uint16_t rx_descriptors[3]; /* at least, at most, multiple of */
	uint16_t tx_descriptors[3];
	uint16_t table_entries;  /* of the RSS indirection table, 0 if it has none */
	uint8_t mac[6];
	uint8_t is_virtual;      /* on the bus "vdev" */
	uint8_t is_up;           /* has a link now */
	uint8_t hashes_one_end;  /* can hash the source, or the destination, alone */
	uint8_t hashes_flows;    /* can hash addresses and ports */
	char driver[32];
};

/* How a device is to be set up. */
struct rvs_device_setup {
	uint32_t mtu;            /* 0: as it is */
	uint16_t queues;         /* of each direction */
	uint8_t spread;          /* enum rvs_spread */
	uint8_t key_repeat[2];   /* the RSS key is these, repeated */
	uint8_t unused[3];
};

/* What a frame's queue is chosen by. */
enum rvs_spread {
	RVS_SPREAD_NONE = 0,
	RVS_SPREAD_SOURCE = 1,
	RVS_SPREAD_DESTINATION = 2,
	RVS_SPREAD_FLOW = 3,
};

/* All that return int return 0, or a negative errno. */
int rvs_errno(void);
int rvs_device_info(uint16_t device, struct rvs_device_info *info);
int rvs_device_configure(uint16_t device, const struct rvs_device_setup *setup);
int rvs_rx_queue(uint16_t device, uint16_t queue, uint16_t descriptors, int node,
		 struct rte_mempool *pool);
int rvs_tx_queue(uint16_t device, uint16_t queue, uint16_t descriptors, int node);
int rvs_device_spread(uint16_t device, uint16_t entries, uint16_t queues);
/* Our address in place of the device's own, or beside it. */
int rvs_device_mac(uint16_t device, const uint8_t mac[6], int beside);
/* Returns how many counters there are; fills in at most `room`. Names have 64 octets each. */
int rvs_device_counters(uint16_t device, char *names, uint64_t *values, unsigned int room);

uint16_t rvs_rx_burst(uint16_t device, uint16_t queue, struct rte_mbuf **frames, uint16_t most);
uint16_t rvs_tx_burst(uint16_t device, uint16_t queue, struct rte_mbuf **frames, uint16_t count);
struct rte_mbuf *rvs_frame_take(struct rte_mempool *pool);
void rvs_frame_give(struct rte_mbuf *frame);
/* Puts a stripped 802.1Q tag back into the frame. */
int rvs_frame_unstrip(struct rte_mbuf **frame);

/* DPDK's messages of this thread's process go to a buffer, until they are asked for. */
int rvs_log_capture(void);
/* Copies the last octets of them and ends the capture. Returns how many. */
unsigned int rvs_log_release(char *text, unsigned int room);

#ifdef RVS_RINGS
struct rte_ring;
/* A device `name` whose queues receive from `arriving` and send to `leaving`. Its id, or -errno. */
int rvs_ring_device(const char *name, struct rte_ring **arriving, struct rte_ring **leaving,
		    unsigned int queues, int node);
struct rte_ring *rvs_ring(const char *name, unsigned int frames, int node);
int rvs_ring_push(struct rte_ring *ring, struct rte_mbuf *frame);
struct rte_mbuf *rvs_ring_pop(struct rte_ring *ring);
unsigned int rvs_ring_count(const struct rte_ring *ring);
#endif

#endif
