//! The configuration as it is written: every value keeps its place, nothing is checked but types.

use super::{Idle, Side};
use crate::store::Sync;
use core::fmt;
use rvs_model::Setting;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use std::collections::BTreeMap;
use toml::Spanned;

/// A whole number; ranges are checked where its meaning is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value))
            }
        }
        deserializer.deserialize_i64(Seen)
    }
}

/// One port, or a text that tells a range.
#[derive(Clone, Debug)]
pub(super) enum Ports {
    One(i64),
    Range(String),
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Ports;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port or a range like \"8000-8999\"")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Ports, E> {
                Ok(Ports::One(value))
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Ports, E> {
                Ok(Ports::Range(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

/// A number in its place, if it was given.
pub(super) type Number = Option<Spanned<Whole>>;
/// A text in its place.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) local: Vec<Text>,
    pub(super) forwarding: Option<bool>,
    pub(super) announce: Option<bool>,
    pub(super) control: Control,
    pub(super) workers: Workers,
    pub(super) tables: Tables,
    pub(super) dpdk: Option<Spanned<Dpdk>>,
    pub(super) link: Vec<Spanned<Link>>,
    pub(super) route: Vec<Spanned<Route>>,
    pub(super) neighbor: Vec<Neighbor>,
    pub(super) mark: Vec<Spanned<Mark>>,
    pub(super) timeouts: BTreeMap<Text, Spanned<Whole>>,
    pub(super) ipvs: BTreeMap<Text, Spanned<Setting>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Control {
    pub(super) socket: Option<Text>,
    pub(super) netlink: Option<Text>,
    pub(super) mode: Option<Text>,
    pub(super) owner: Option<Text>,
    pub(super) group: Option<Text>,
    pub(super) change_groups: Vec<Text>,
    pub(super) read_groups: Vec<Text>,
    pub(super) state: Option<Text>,
    pub(super) sync: Sync,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Workers {
    pub(super) cores: Option<Spanned<Vec<Spanned<Whole>>>>,
    pub(super) burst: Number,
    pub(super) huge_pages: Option<bool>,
    pub(super) idle: Option<Idle>,
    pub(super) offload: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tables {
    pub(super) conns: Number,
    pub(super) conns6: Number,
    pub(super) services: Number,
    pub(super) dests: Number,
    pub(super) neighbors: Number,
    pub(super) frames: Number,
    pub(super) frame_octets: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Dpdk {
    pub(super) eal: Vec<Text>,
    pub(super) no_huge: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Tap,
    Pcap,
    Dpdk,
    #[serde(rename = "af_xdp")]
    AfXdp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    pub(super) name: Text,
    pub(super) kind: Spanned<Kind>,
    pub(super) device: Option<Text>,
    pub(super) host: Option<Text>,
    pub(super) mac: Option<Text>,
    pub(super) mtu: Number,
    #[serde(default)]
    pub(super) addresses: Vec<Text>,
    pub(super) read: Option<Text>,
    pub(super) write: Option<Text>,
    pub(super) side: Option<Spanned<Side>>,
    pub(super) rx_descriptors: Number,
    pub(super) tx_descriptors: Number,
    pub(super) promiscuous: Option<Spanned<bool>>,
    pub(super) shared: Option<Spanned<bool>>,
    pub(super) zero_copy: Option<Spanned<bool>>,
    pub(super) busy_poll_us: Number,
    #[serde(default)]
    pub(super) vlan: Vec<Vlan>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vlan {
    pub(super) id: Spanned<Whole>,
    pub(super) name: Option<Text>,
    pub(super) mtu: Number,
    #[serde(default)]
    pub(super) addresses: Vec<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) to: Text,
    pub(super) via: Option<Text>,
    pub(super) link: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Neighbor {
    pub(super) link: Text,
    pub(super) address: Text,
    pub(super) mac: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub(super) set: Spanned<Whole>,
    pub(super) source: Option<Text>,
    pub(super) destination: Option<Text>,
    pub(super) protocol: Option<Text>,
    pub(super) source_ports: Option<Spanned<Ports>>,
    pub(super) destination_ports: Option<Spanned<Ports>>,
    pub(super) link: Option<Text>,
}
