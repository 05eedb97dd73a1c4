//! Each claim about a wrong file is the one line that an operator sees.

mod af_xdp;
mod dpdk;

use super::*;
use core::fmt::Write;
use rvs_model::{SYSCTLS, State, Sysctl, Tunables};
use rvs_plane::network::InterfaceId;

/// Two links, a VLAN, a route and a neighbour: what the wrong files below are made from.
const GOOD: &str = r#"
local = ["198.51.100.0/28"]

[[link]]
name = "client"
kind = "tap"
mac = "02:00:00:00:00:01"
addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]

[[link]]
name = "servers"
kind = "tap"
mac = "02:00:00:00:00:02"
mtu = 9000
addresses = ["10.0.0.1/24"]

[[link.vlan]]
id = 7
mtu = 1500
addresses = ["10.7.0.1/24"]

[[route]]
to = "0.0.0.0/0"
via = "192.0.2.254"

[[neighbor]]
link = "servers"
address = "10.0.0.11"
mac = "02:00:00:00:00:11"
"#;

const LINK: &str = "[[link]]\nname = \"a\"\nkind = \"tap\"\n";

fn machine() -> Machine {
    Machine { cores: vec![0, 1], name: "director".to_owned() }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/rvs/rvs.toml"), text, &machine())
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// What is said of a wrong file, without the file's name.
fn line(text: &str) -> String {
    let error = parse(text).map(|config| panic!("accepted {text}: {config:?}")).unwrap_err();
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    line.strip_prefix("/etc/rvs/rvs.toml:").expect("the file comes first").to_owned()
}

#[track_caller]
fn wrong(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(line(text), *expected, "for {text}");
    }
}

/// `GOOD` with `from` replaced by `to`.
#[track_caller]
fn changed(cases: &[(&str, &str, &str)]) {
    good(GOOD);
    for (from, to, expected) in cases {
        assert_eq!(GOOD.matches(from).count(), 1, "{from} is there once");
        assert_eq!(line(&GOOD.replace(from, to)), *expected, "for {to}");
    }
}

/// `addition` behind `GOOD`; `+` is the line before it.
#[track_caller]
fn added(cases: &[(&str, &str)]) {
    for (addition, expected) in cases {
        let found = line(&format!("{GOOD}{addition}"));
        let (number, rest) = found.split_once(':').unwrap();
        let number = number.parse::<usize>().unwrap() - GOOD.lines().count();
        assert_eq!(format!("+{number}:{rest}"), *expected, "for {addition}");
    }
}

#[test]
fn one_link_is_enough_and_all_else_has_defaults() {
    let config = good(LINK);
    assert_eq!(config.control.socket, Path::new("/run/rvs/rvsd.sock"));
    assert_eq!(config.control.mode, 0o600);
    let idle = Idle::Adaptive;
    let workers = Workers { cores: vec![], burst: 64, huge_pages: true, idle, offload: true };
    assert_eq!(config.workers, workers);
    assert_eq!(config.workers.count(), 1);
    let tables = Tables {
        conns4: 262_144,
        conns6: 65_536,
        services: 16_384,
        dests: 131_072,
        neighbors: 1024,
        frames: 4096,
        frame_octets: 1518,
    };
    assert_eq!(config.tables, tables);
    assert_eq!(config.links, Links::Tap(vec![TapLink { device: "a".to_owned(), mtu: None }]));
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.sysctls, Sysctls::default());
    let [interface] = config.network.interfaces() else { panic!("one interface") };
    assert_eq!(interface.mac, derived_mac("director", "a"));
    assert!(config.network.forwards());
}

#[test]
fn links_vlans_routes_and_neighbours_become_the_network() {
    let network = good(GOOD).network;
    let names: Vec<_> = network.interfaces().iter().map(|i| (i.name.as_str(), i.vlan)).collect();
    assert_eq!(names, [("client", 0), ("servers", 0), ("servers.7", 7)]);
    assert_eq!(network.interface_of(1, 7), Some(InterfaceId(2)));
    let mtus: Vec<_> = network.interfaces().iter().map(|interface| interface.mtu).collect();
    assert_eq!(mtus, [1500, 9000, 1500]);
    let hop = network.next_hop("203.0.113.9".parse().unwrap()).unwrap();
    assert_eq!((hop.interface, hop.address), (InterfaceId(0), "192.0.2.254".parse().unwrap()));
    let hop = network.next_hop("10.7.0.9".parse().unwrap()).unwrap();
    assert_eq!((hop.interface, hop.on_link), (InterfaceId(2), true));
    assert!(network.is_local("198.51.100.3".parse().unwrap()));
    assert!(!network.is_local("198.51.100.16".parse().unwrap()));
    let [neighbor] = network.static_neighbors() else { panic!("one neighbour") };
    assert_eq!(neighbor.interface, InterfaceId(1));
}

#[test]
fn a_router_may_be_named_by_its_link_alone() {
    let text = format!("{LINK}[[route]]\nto = \"::/0\"\nvia = \"fe80::1\"\nlink = \"a\"\n");
    let hop = good(&text).network.next_hop("2001:db8::1".parse().unwrap()).unwrap();
    assert_eq!(hop.address, "fe80::1".parse::<core::net::IpAddr>().unwrap());
    let text = format!("{LINK}[[route]]\nto = \"10.0.0.0/8\"\nlink = \"a\"\n");
    let hop = good(&text).network.next_hop("10.1.2.3".parse().unwrap()).unwrap();
    assert!(hop.on_link);
}

#[test]
fn frames_have_room_for_the_largest_mtu_and_its_headers() {
    assert_eq!(good(GOOD).tables.frame_octets, 9018);
    let text = format!("{GOOD}[tables]\nframe_octets = 9216\n");
    assert_eq!(good(&text).tables.frame_octets, 9216);
}

#[test]
fn every_section_is_taken_as_written() {
    let config = good(&format!(
        "{LINK}
        [control]\nsocket = \"rvsd.sock\"\nmode = \"0660\"
        [workers]\ncores = [1, 0]\nburst = 32\nhuge_pages = false\nidle = \"poll\"\noffload = false
        [tables]\nconns = 1\nconns6 = 2\nservices = 3\ndests = 4\nneighbors = 5\nframes = 2048
        [timeouts]\nestablished = 800\nsynack = 9\nudp = 30\nnone = 1
        [ipvs]\nconn_reuse_mode = 3\nsloppy_tcp = 1\nexpire_nodest_conn = true\nsecure_tcp = 3
        pmtu_disc = 0\nexpire_quiescent_template = 1\nlblc_expiration = 5\nlblcr_expiration = 6\nsync_threshold = \"5 10\"\n"
    ));
    assert_eq!(config.control.socket, Path::new("/etc/rvs/rvsd.sock"));
    assert_eq!(config.control.mode, 0o660);
    let (cores, idle) = (vec![1, 0], Idle::Poll);
    let workers = Workers { cores, burst: 32, huge_pages: false, idle, offload: false };
    assert_eq!(config.workers, workers);
    let Tables { conns4, conns6, services, dests, neighbors, frames, .. } = config.tables;
    assert_eq!((conns4, conns6, services, dests, neighbors, frames), (1, 2, 3, 4, 5, 2048));
    let seconds = |state| config.timeouts.seconds(state);
    assert_eq!(seconds(State::Established), 800);
    assert_eq!(seconds(State::SynAck), 9);
    assert_eq!(seconds(State::Udp), 30);
    assert_eq!(seconds(State::None), 1);
    assert_eq!(seconds(State::FinWait), 120);
    let tunables = Tunables {
        conn_reuse_mode: 3,
        sloppy_tcp: true,
        sloppy_sctp: false,
        expire_nodest_conn: true,
        expire_quiescent_template: true,
        secure_tcp: 3,
        pmtu_disc: false,
        lblc_expiration: 5,
        lblcr_expiration: 6,
        ..Tunables::default()
    };
    assert_eq!(config.sysctls.tunables(), tunables);
    assert_eq!(config.sysctls.get("sync_threshold").as_deref(), Some("5 10"));
}

#[test]
fn the_classic_lvs_timeouts_can_be_written_down() {
    let text = format!(
        "{LINK}[timeouts]\nsyn_recv = 60\nsyn_sent = 60\nestablished = 900\nfin_wait = 60\n"
    );
    let timeouts = good(&text).timeouts;
    let seconds = [State::SynRecv, State::SynSent, State::Established, State::FinWait, State::Udp]
        .map(|state| timeouts.seconds(state));
    assert_eq!(seconds, [60, 60, 900, 60, 300]);
}

#[test]
fn captures_are_links_and_their_paths_are_relative_to_the_file() {
    let text = "[[link]]\nname = \"wire\"\nkind = \"pcap\"\nmac = \"02:00:00:00:00:01\"\n\
                read = \"in.pcap\"\nwrite = \"/srv/out.pcap\"\n";
    let expected = PcapLink {
        read: Some(PathBuf::from("/etc/rvs/in.pcap")),
        write: Some(PathBuf::from("/srv/out.pcap")),
    };
    assert_eq!(good(text).links, Links::Pcap(vec![expected]));
}

#[test]
fn captures_are_one_workers() {
    let link =
        "[[link]]\nname = \"a\"\nkind = \"pcap\"\nmac = \"02:00:00:00:00:01\"\nread = \"a\"\n";
    good(&format!("{link}[workers]\ncores = [1]\n"));
    let two = format!("{link}[workers]\ncores = [0, 1]\n");
    assert_eq!(line(&two), "7:9: cores has 2 entries, expected 1: a capture is one queue");
}

#[test]
fn a_derived_mac_is_local_stable_and_different_everywhere() {
    let mac = derived_mac("director", "a");
    assert_eq!(mac, derived_mac("director", "a"));
    assert_ne!(mac, derived_mac("director", "b"));
    assert_ne!(mac, derived_mac("other", "a"));
    assert_ne!(derived_mac("ab", "c"), derived_mac("a", "bc"));
    assert_eq!(mac.0[0] & 3, 2);
}

#[test]
fn what_is_no_toml_or_of_another_type_gets_one_line() {
    wrong(&[
        ("forwarding = maybe\n", "1:14: string values must be quoted, expected literal string"),
        ("[control\n", "1:9: unclosed table, expected `]`"),
        ("forwarding = 1\n", "1:14: invalid type: integer `1`, expected a boolean"),
        (
            "[workers]\nburst = \"64\"\n",
            "2:9: invalid type: string \"64\", expected a whole number",
        ),
        (
            "[workers]\nburst = 1.5\n",
            "2:9: invalid type: floating point `1.5`, expected a whole number",
        ),
        ("[workers]\nburst = 1\nburst = 2\n", "3:1: duplicate key"),
        (
            "[ipvs]\nsloppy_tcp = 1.5\n",
            "2:14: invalid type: floating point `1.5`, expected a whole number, a switch or a text",
        ),
    ]);
}

#[test]
fn the_sockets_of_one_director_lie_together_and_are_two() {
    let control = "[control]\nsocket = \"run/a.sock\"\ngroup = \"0\"\nread_groups = [\"root\"]\n";
    let config = good(&[control, LINK].concat());
    assert_eq!(config.control.netlink, Path::new("/etc/rvs/run/a.netlink"));
    assert_eq!((config.control.group, config.control.rules.read), (Some(0), vec![0]));
    wrong(&[
        (
            "[control]\nsocket = \"a\"\nnetlink = \"a\"\n",
            "3:11: netlink's path is socket's, expected another",
        ),
        (
            "[control]\nsocket = \"a.netlink\"\n",
            "2:10: socket's path is that of netlink, expected another, or a `netlink`",
        ),
        (
            "[control]\nowner = \"nobody here\"\n",
            "2:9: owner is \"nobody here\", expected a user's name or number",
        ),
    ]);
}

#[test]
fn unknown_keys_are_refused_with_those_there_are() {
    wrong(&[
        (
            "forwards = true\n",
            "1:1: unknown field `forwards`, expected one of `local`, `forwarding`, `announce`, `control`, \
             `workers`, `tables`, `dpdk`, `link`, `route`, `neighbor`, `mark`, `timeouts`, `ipvs`",
        ),
        (
            "[control]\npath = 1\n",
            "2:1: unknown field `path`, expected one of `socket`, `netlink`, `mode`, `owner`, `group`, \
             `change_groups`, `read_groups`, `state`, `sync`",
        ),
        (
            "[workers]\nthreads = 1\n",
            "2:1: unknown field `threads`, expected one of `cores`, `burst`, `huge_pages`, `idle`, `offload`",
        ),
        (
            "[tables]\nconn = 1\n",
            "2:1: unknown field `conn`, expected one of `conns`, `conns6`, `services`, `dests`, \
             `neighbors`, `frames`, `frame_octets`",
        ),
        (
            "[[link]]\nname = \"a\"\nkind = \"tap\"\nqueues = 2\n",
            "4:1: unknown field `queues`, expected one of `name`, `kind`, `device`, `host`, `mac`, `mtu`, \
             `addresses`, `read`, `write`, `side`, `rx_descriptors`, `tx_descriptors`, \
             `promiscuous`, `shared`, `zero_copy`, `busy_poll_us`, `vlan`",
        ),
        (
            "[[link]]\nname = \"a\"\nkind = \"tap\"\n[[link.vlan]]\nid = 1\nmac = \"x\"\n",
            "6:1: unknown field `mac`, expected one of `id`, `name`, `mtu`, `addresses`",
        ),
        (
            "[[route]]\ndev = \"a\"\n",
            "2:1: unknown field `dev`, expected one of `to`, `via`, `link`",
        ),
        (
            "[[neighbor]]\nip = \"a\"\n",
            "2:1: unknown field `ip`, expected one of `link`, `address`, `mac`",
        ),
    ]);
    let names: Vec<_> = SYSCTLS.iter().map(|sysctl| format!("`{}`", sysctl.name)).collect();
    let known = format!("+2:1: unknown field `max_conns`, expected one of {}", names.join(", "));
    added(&[("[ipvs]\nmax_conns = 1\n", known.as_str())]);
    added(&[(
        "[timeouts]\nfin = 60\n",
        "+2:1: unknown field `fin`, expected one of `none`, `established`, `syn_sent`, `syn_recv`, \
         `fin_wait`, `time_wait`, `close`, `close_wait`, `last_ack`, `listen`, `synack`, `udp`, \
         `sctp_init1`, `sctp_init`, `sctp_c_sent`, `sctp_c_replied`, `sctp_c_wait`, `sctp_cookie`, \
         `sctp_c_echoed`, `sctp_established`, `sctp_s_sent`, `sctp_s_received`, `sctp_s_ack_sent`, \
         `sctp_rejected`, `sctp_closed`",
    )]);
}

#[test]
fn what_is_missing_is_named() {
    wrong(&[
        ("", " no link, expected at least one [[link]]"),
        ("[[link]]\nkind = \"tap\"\n", "1:1: missing field `name`"),
        ("[[link]]\nname = \"a\"\n", "1:1: missing field `kind`"),
        (
            "[[link]]\nname = \"a\"\nkind = \"pcap\"\nmac = \"02:00:00:00:00:01\"\n",
            "2:8: link \"a\" has neither `read` nor `write`, expected one of them or both",
        ),
        (
            "[[link]]\nname = \"a\"\nkind = \"pcap\"\nread = \"a.pcap\"\n",
            "2:8: link \"a\" has no `mac`, expected six octets like \"02:00:00:00:00:01\"",
        ),
    ]);
    added(&[
        ("[[link.vlan]]\nmtu = 1500\n", "+1:1: missing field `id`"),
        ("[[route]]\nvia = \"192.0.2.9\"\n", "+1:1: missing field `to`"),
        ("[[neighbor]]\nlink = \"client\"\naddress = \"192.0.2.9\"\n", "+1:1: missing field `mac`"),
        (
            "[[route]]\nto = \"10.9.0.0/16\"\n",
            "+2:6: route to 10.9.0.0/16 has neither `via` nor `link`, expected one of them or both",
        ),
    ]);
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    added(&[
        ("[workers]\nburst = 0\n", "+2:9: burst is 0, expected 1 to 256"),
        ("[workers]\nburst = 257\n", "+2:9: burst is 257, expected 1 to 256"),
        ("[tables]\nconns = 0\n", "+2:9: conns is 0, expected 1 to 268435456"),
        ("[tables]\nconns6 = -1\n", "+2:10: conns6 is -1, expected 1 to 268435456"),
        ("[tables]\nservices = 0\n", "+2:12: services is 0, expected 1 to 1048576"),
        ("[tables]\ndests = 4194305\n", "+2:9: dests is 4194305, expected 1 to 4194304"),
        ("[tables]\nneighbors = 65536\n", "+2:13: neighbors is 65536, expected 1 to 65535"),
        ("[tables]\nframes = 2047\n", "+2:10: frames is 2047, expected 2048 to 4194304"),
        (
            "[tables]\nframe_octets = 9017\n",
            "+2:16: frame_octets is 9017, expected at least 9018: the largest mtu and 18 octets of \
             Ethernet and VLAN headers",
        ),
        ("[tables]\nframe_octets = 65554\n", "+2:16: frame_octets is 65554, expected 64 to 65553"),
        ("[timeouts]\nestablished = 0\n", "+2:15: established is 0, expected 1 to 8589934"),
        (
            "[timeouts]\nudp = 9223372036854775807\n",
            "+2:7: udp is 9223372036854775807, expected 1 to 8589934",
        ),
        ("[ipvs]\nconn_reuse_mode = 4\n", "+2:19: conn_reuse_mode is 4, expected 0 to 3"),
        ("[ipvs]\nsecure_tcp = 4\n", "+2:14: secure_tcp is 4, expected 0 to 3"),
        ("[ipvs]\nsloppy_tcp = 2\n", "+2:14: sloppy_tcp is 2, expected 0 or 1"),
        ("[ipvs]\nsloppy_tcp = \"on\"\n", "+2:14: sloppy_tcp is on, expected 0 or 1"),
        (
            "[ipvs]\nsync_threshold = \"50 3\"\n",
            "+2:18: sync_threshold is 50 3, expected two numbers like \"3 50\", the first the lesser",
        ),
        ("[workers]\ncores = []\n", "+2:9: cores has 0 entries, expected 1 to 128"),
        ("[[link.vlan]]\nid = 0\n", "+2:6: id is 0, expected 1 to 4094"),
        ("[[link.vlan]]\nid = 4095\n", "+2:6: id is 4095, expected 1 to 4094"),
    ]);
    changed(&[
        ("mtu = 9000", "mtu = 67", "14:7: mtu is 67, expected 68 to 65521"),
        ("mtu = 9000", "mtu = 65522", "14:7: mtu is 65522, expected 68 to 65521"),
        ("mtu = 1500", "mtu = 9001", "19:7: mtu is 9001, expected 68 to 9000"),
    ]);
}

#[test]
fn the_mtu_of_an_ipv6_link_is_at_least_1280() {
    let link = |mtu| format!("{LINK}mtu = {mtu}\naddresses = [\"2001:db8::1/64\"]\n");
    good(&link(1280));
    wrong(&[(
        &link(1279),
        "4:7: mtu of \"a\" is 1279, expected 1280 to 65521 because it has IPv6 addresses",
    )]);
}

#[test]
fn words_that_are_none_are_refused_with_those_there_are() {
    wrong(&[
        (
            "[[link]]\nname = \"a\"\nkind = \"veth\"\n",
            "3:8: unknown variant `veth`, expected one of `tap`, `pcap`, `dpdk`, `af_xdp`",
        ),
        (
            "[workers]\nidle = \"sleep\"\n",
            "2:8: unknown variant `sleep`, expected `adaptive` or `poll`",
        ),
    ]);
    added(&[
        (
            "[control]\nmode = \"rw\"\n",
            "+2:8: mode is \"rw\", expected octal permissions \"0000\" to \"0777\"",
        ),
        (
            "[control]\nmode = \"0680\"\n",
            "+2:8: mode is \"0680\", expected octal permissions \"0000\" to \"0777\"",
        ),
        (
            "[control]\nmode = \"1777\"\n",
            "+2:8: mode is \"1777\", expected octal permissions \"0000\" to \"0777\"",
        ),
        (
            "[control]\nsocket = \"\"\n",
            "+2:10: socket's path has 9 octets, expected a path of 1 to 107",
        ),
        ("[workers]\ncores = [0, 2]\n", "+2:13: core 2 is not there, expected one of 0, 1"),
        ("[workers]\ncores = [-1]\n", "+2:10: core -1 is not there, expected one of 0, 1"),
        (
            "[[route]]\nto = \"10.9.0.0/16\"\nlink = \"backend\"\n",
            "+3:8: link is \"backend\", expected one of client, servers, servers.7",
        ),
        (
            "[[neighbor]]\nlink = \"x\"\naddress = \"192.0.2.9\"\nmac = \"02:00:00:00:00:09\"\n",
            "+2:8: link is \"x\", expected one of client, servers, servers.7",
        ),
    ]);
    let long = format!("{GOOD}[control]\nsocket = \"/{}\"\n", "x".repeat(107));
    assert_eq!(line(&long), "31:10: socket's path has 108 octets, expected a path of 1 to 107");
}

#[test]
fn names_addresses_and_networks_are_checked() {
    changed(&[
        (
            "\"client\"",
            "\"cli ent\"",
            "5:8: name is \"cli ent\", expected 1 to 15 letters, digits, '.', '_' or '-', no '.' first",
        ),
        (
            "kind = \"tap\"\nmac = \"02:00:00:00:00:02\"",
            "kind = \"tap\"\ndevice = \"sixteen-letters-\"",
            "13:10: device is \"sixteen-letters-\", expected 1 to 15 letters, digits, '.', '_' or \
             '-', no '.' first",
        ),
        (
            "192.0.2.1/24",
            "192.0.2.1",
            "8:14: address is \"192.0.2.1\", expected an address with its network's prefix length \
             like 192.0.2.1/24 or 2001:db8::1/64",
        ),
        (
            "192.0.2.1/24",
            "192.0.2.1/33",
            "8:14: address is \"192.0.2.1/33\", expected an address with its network's prefix length \
             like 192.0.2.1/24 or 2001:db8::1/64",
        ),
        (
            "192.0.2.1/24",
            "192.0.2.0/24",
            "8:14: address is 192.0.2.0/24, expected the address of one host, not the network's \
             first or last",
        ),
        (
            "192.0.2.1/24",
            "192.0.2.255/24",
            "8:14: address is 192.0.2.255/24, expected the address of one host, not the network's \
             first or last",
        ),
        (
            "192.0.2.1/24",
            "224.0.0.1/24",
            "8:14: address is 224.0.0.1, expected the address of one host",
        ),
        ("2001:db8:1::1/64", "::1/128", "8:30: address is ::1, expected the address of one host"),
        (
            "\"02:00:00:00:00:01\"",
            "\"020000000001\"",
            "7:7: mac is \"020000000001\", expected six octets like \"02:00:00:00:00:01\"",
        ),
        (
            "\"02:00:00:00:00:01\"",
            "\"03:00:00:00:00:01\"",
            "7:7: mac is 03:00:00:00:00:01, expected the address of one host: an even first octet, \
             not all zero",
        ),
        (
            "\"02:00:00:00:00:11\"",
            "\"00:00:00:00:00:00\"",
            "29:7: mac is 00:00:00:00:00:00, expected the address of one host: an even first octet, \
             not all zero",
        ),
        (
            "to = \"0.0.0.0/0\"",
            "to = \"default\"",
            "23:6: to is \"default\", expected a network like 192.0.2.0/24 or 2001:db8::/64",
        ),
        (
            "to = \"0.0.0.0/0\"",
            "to = \"10.9.0.1/16\"",
            "23:6: to is 10.9.0.1/16, expected its network 10.9.0.0/16",
        ),
        (
            "198.51.100.0/28",
            "198.51.100.1/28",
            "2:10: local is 198.51.100.1/28, expected its network 198.51.100.0/28",
        ),
        (
            "198.51.100.0/28",
            "10.0.0.0/8",
            "2:10: local is 10.0.0.0/8, expected a network that leaves out 10.0.0.0/24 of link \
             \"servers\"",
        ),
        ("\"10.0.0.11\"", "\"10.0.0.1\"", "28:11: address is 10.0.0.1, expected another host's"),
    ]);
}

#[test]
fn routers_must_be_reachable_and_of_the_family() {
    changed(&[
        (
            "via = \"192.0.2.254\"",
            "via = \"172.16.0.1\"",
            "24:7: via is 172.16.0.1, expected an address in a connected network (192.0.2.0/24, \
             2001:db8:1::/64, 10.0.0.0/24, 10.7.0.0/24) or a `link`",
        ),
        (
            "via = \"192.0.2.254\"",
            "via = \"2001:db8:1::9\"",
            "24:7: via is 2001:db8:1::9, expected an IPv4 address like 0.0.0.0/0",
        ),
        (
            "via = \"192.0.2.254\"",
            "via = \"192.0.2.1\"",
            "24:7: via is 192.0.2.1, expected another router: this is our own",
        ),
        (
            "via = \"192.0.2.254\"",
            "via = \"gateway\"",
            "24:7: via is \"gateway\", expected an IP address like 192.0.2.1 or 2001:db8::1",
        ),
    ]);
}

#[test]
fn nothing_may_be_there_twice() {
    added(&[
        ("[workers]\ncores = [1, 1]\n", "+2:13: core 1 is there already (line 31)"),
        (
            "[[link]]\nname = \"client\"\nkind = \"tap\"\ndevice = \"x\"\nmac = \"02:00:00:00:00:09\"\n",
            "+2:8: link \"client\" is there already (line 5)",
        ),
        (
            "[[link]]\nname = \"x\"\nkind = \"tap\"\ndevice = \"client\"\n",
            "+4:10: device client is there already (line 5)",
        ),
        (
            "[[link]]\nname = \"x\"\nkind = \"tap\"\nmac = \"02:00:00:00:00:01\"\n",
            "+4:7: mac 02:00:00:00:00:01 is there already (line 7)",
        ),
        (
            "[[link]]\nname = \"x\"\nkind = \"tap\"\naddresses = [\"192.0.2.1/32\"]\n",
            "+4:14: address 192.0.2.1 is there already (line 8)",
        ),
        (
            "[[link]]\nname = \"x\"\nkind = \"tap\"\naddresses = [\"192.0.2.2/24\"]\n",
            "+4:14: network 192.0.2.0/24 is connected to link \"client\" already, expected one link \
             per network",
        ),
        ("[[link.vlan]]\nid = 7\n", "+2:6: VLAN 7 of link \"servers\" is there already (line 18)"),
        (
            "[[link.vlan]]\nid = 8\nname = \"client\"\n",
            "+3:8: link \"client\" is there already (line 5)",
        ),
        (
            "[[route]]\nto = \"0.0.0.0/0\"\nvia = \"192.0.2.253\"\n",
            "+2:6: route to 0.0.0.0/0 is there already (line 23)",
        ),
        (
            "[[route]]\nto = \"10.0.0.0/24\"\nvia = \"192.0.2.253\"\n",
            "+2:6: route to 10.0.0.0/24 is there already: link \"servers\" is connected to it",
        ),
        (
            "[[neighbor]]\nlink = \"servers\"\naddress = \"10.0.0.11\"\nmac = \"02:00:00:00:00:12\"\n",
            "+3:11: neighbor 10.0.0.11 of link \"servers\" is there already (line 28)",
        ),
    ]);
    changed(&[(
        "[\"198.51.100.0/28\"]",
        "[\"198.51.100.0/28\", \"198.51.100.0/28\"]",
        "2:29: local 198.51.100.0/28 is there already (line 2)",
    )]);
    let pcap = |name: &str, mac: &str, write: &str| {
        format!("[[link]]\nname = {name:?}\nkind = \"pcap\"\nmac = {mac:?}\nwrite = {write:?}\n")
    };
    let twice = pcap("a", "02:00:00:00:00:01", "x") + &pcap("b", "02:00:00:00:00:02", "x");
    assert_eq!(line(&twice), "10:9: capture \"x\" is there already (line 5)");
}

#[test]
fn two_addresses_of_one_network_may_be_on_one_link() {
    good(&format!("{LINK}addresses = [\"192.0.2.1/24\", \"192.0.2.2/24\", \"fe80::1/64\"]\n"));
}

#[test]
fn links_are_of_one_kind_and_have_no_keys_of_the_other() {
    added(&[(
        "[[link]]\nname = \"x\"\nkind = \"pcap\"\nread = \"x.pcap\"\n",
        "+3:8: link \"x\" is of another kind than link \"client\", expected \"tap\": all links of a \
         director are of one kind",
    )]);
    wrong(&[
        (
            "[[link]]\nname = \"a\"\nkind = \"tap\"\nread = \"x\"\n",
            "4:8: a tap link has no `read`, expected it to be left out",
        ),
        (
            "[[link]]\nname = \"a\"\nkind = \"tap\"\nwrite = \"x\"\n",
            "4:9: a tap link has no `write`, expected it to be left out",
        ),
        (
            "[[link]]\nname = \"a\"\nkind = \"pcap\"\ndevice = \"x\"\n",
            "4:10: a pcap link has no `device`, expected it to be left out",
        ),
    ]);
}

#[test]
fn too_many_links_are_refused() {
    let mut text = String::new();
    for number in 0..65 {
        writeln!(text, "[[link]]\nname = \"l{number}\"\nkind = \"tap\"").unwrap();
    }
    assert_eq!(line(&text), "193:1: too many links, expected 1 to 64");
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let error = Config::read(Path::new("/nonexistent/rvs.toml"), &machine()).unwrap_err();
    let expected = "/nonexistent/rvs.toml: cannot read it: No such file or directory (os error 2)";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn columns_count_characters() {
    let text = format!("{LINK}addresses = [\"192.0.2.1/24\", \"äöü\"]\n");
    assert!(line(&text).starts_with("4:30: address is \"äöü\""));
    assert!(line(&text.replace("192.0.2.1/24", "ä")).starts_with("4:14: address is \"ä\""));
}

/// The manual's examples are taken as they stand, and its long one shows the defaults.
#[test]
fn the_manual_tells_the_truth() {
    let manual = include_str!("../../../../docs/manual/configuration.md");
    let examples: Vec<_> =
        manual.split("```toml\n").skip(1).map(|from| from.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 7);
    for example in &examples {
        good(example);
    }
    let whole = good(examples[1]);
    let plain = good(&format!("{LINK}[workers]\ncores = [0]\n"));
    assert_eq!(whole.control, plain.control);
    assert_eq!((&whole.workers, &whole.tables), (&plain.workers, &plain.tables));
    assert_eq!((whole.timeouts, whole.sysctls), (plain.timeouts, plain.sysctls));
    for state in State::ALL {
        let name = state.name().to_ascii_lowercase().replace('-', "_");
        let key = if state.is_sctp() { format!("sctp_{name}") } else { name };
        let row = format!("`{key}` | {} |", plain.timeouts.seconds(state));
        assert!(manual.contains(&row), "{row}");
    }
    for key in [
        "forwarding",
        "announce",
        "local",
        "socket",
        "mode",
        "cores",
        "burst",
        "huge_pages",
        "idle",
        "offload",
    ]
    .into_iter()
    .chain(["conns", "conns6", "services", "dests", "neighbors", "frames", "frame_octets"])
    .chain(["name", "kind", "mac", "mtu", "addresses", "device", "read", "write", "id", "to"])
    .chain(["via", "link"])
    {
        assert!(manual.contains(&format!("\n| `{key}` |")), "{key}");
    }
}

#[test]
fn the_manual_lists_every_sysctl_as_it_is() {
    let manual = include_str!("../../../../docs/manual/configuration.md");
    let (_, section) = manual.split_once("### `[ipvs]`").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |it: &Sysctl| {
        let Sysctl { name, default, allowed, sentence, .. } = it;
        format!("| `{name}` | {default} | {allowed} | {sentence} |")
    };
    assert_eq!(rows, SYSCTLS.iter().map(row).collect::<Vec<_>>());
}

/// Every prefix and every single-octet deletion of a good file is accepted or gets one line.
#[test]
fn no_text_makes_it_panic() {
    for end in 0..GOOD.len() {
        let _either = parse(&GOOD[..end]);
        let _either = parse(&format!("{}{}", &GOOD[..end], &GOOD[end + 1..]));
    }
}

#[test]
fn marks_are_rules_in_their_order() {
    let config = good(&format!(
        "{GOOD}
        [[mark]]\nset = 0\nsource = \"10.9.0.0/16\"
        [[mark]]\nset = 4294967295\ndestination = \"198.51.100.0/28\"\nprotocol = \"tcp\"
        destination_ports = \"8000-8999\"\nsource_ports = 53\nlink = \"servers.7\"\n"
    ));
    let [first, second] = config.marks.as_slice() else { panic!("two rules") };
    assert_eq!(*first, Rule { source: Some("10.9.0.0/16".parse().unwrap()), ..Rule::new(0) });
    let expected = Rule {
        destination: Some("198.51.100.0/28".parse().unwrap()),
        protocol: Some(6),
        source_ports: 53..=53,
        destination_ports: 8000..=8999,
        interface: Some(InterfaceId(2)),
        ..Rule::new(u32::MAX)
    };
    assert_eq!(*second, expected);
    assert!(good(GOOD).marks.is_empty());
}

#[test]
fn wrong_marks_say_what_would_be_right() {
    added(&[
        ("[[mark]]\nset = 4294967296\n", "+2:7: set is 4294967296, expected 0 to 4294967295"),
        (
            "[[mark]]\nset = 1\nsource = \"10.0.0.1\"\n",
            "+3:10: source is \"10.0.0.1\", expected a network like 192.0.2.0/24 or 2001:db8::/64",
        ),
        (
            "[[mark]]\nset = 1\nsource = \"10.0.0.0/8\"\ndestination = \"::/0\"\n",
            "+4:15: destination is ::/0, expected the family of 10.0.0.0/8",
        ),
        (
            "[[mark]]\nset = 1\nprotocol = \"icmp\"\n",
            "+3:12: protocol is \"icmp\", expected \"tcp\", \"udp\" or \"sctp\"",
        ),
        (
            "[[mark]]\nset = 1\ndestination_ports = \"90-80\"\n",
            "+3:21: destination_ports is \"90-80\", expected a port or a range like \"8000-8999\", 0 to \
             65535",
        ),
        (
            "[[mark]]\nset = 1\nsource_ports = 65536\n",
            "+3:16: source_ports is 65536, expected a port or a range like \"8000-8999\", 0 to 65535",
        ),
        (
            "[[mark]]\nset = 1\nlink = \"dmz\"\n",
            "+3:8: link is \"dmz\", expected one of client, servers, servers.7",
        ),
        ("[[mark]]\nset = 1\n[[mark]]\nset = 2\n", "+3:1: such a mark is there already (line 30)"),
    ]);
}
