//! The same about DPDK.

use super::*;
use rvs_plane::network::Host;

const CARD: &str = "[[link]]\nname = \"a\"\nkind = \"dpdk\"\ndevice = \"0000:01:00.0\"\n";

#[test]
fn cards_are_polled_and_have_their_own_address_unless_told_otherwise() {
    let config = good(CARD);
    let card = DpdkLink {
        name: "a".to_owned(),
        device: "0000:01:00.0".to_owned(),
        host: None,
        mac: None,
        mtu: 1500,
        side: Side::Both,
        rx_descriptors: None,
        tx_descriptors: None,
        promiscuous: false,
    };
    assert_eq!(config.links, Links::Dpdk(vec![card.clone()]));
    assert_eq!((config.workers.idle, config.dpdk), (Idle::Poll, Dpdk::default()));

    let text = "[workers]\nidle = \"adaptive\"\n[dpdk]\neal = [\"--iova-mode=va\"]\n\
                no_huge = true\n[[link]]\nname = \"a\"\nkind = \"dpdk\"\n\
                device = \"net_tap0,iface=x\"\nmac = \"02:00:00:00:00:01\"\nmtu = 9000\n\
                side = \"clients\"\nrx_descriptors = 4096\ntx_descriptors = 512\n\
                promiscuous = true\n";
    let config = good(text);
    let link = DpdkLink {
        device: "net_tap0,iface=x".to_owned(),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        mtu: 9000,
        side: Side::Clients,
        rx_descriptors: Some(4096),
        tx_descriptors: Some(512),
        promiscuous: true,
        ..card
    };
    assert_eq!(config.links, Links::Dpdk(vec![link]));
    let dpdk = Dpdk { eal: vec!["--iova-mode=va".to_owned()], no_huge: true };
    assert_eq!((config.workers.idle, config.dpdk), (Idle::Adaptive, dpdk));
}

#[test]
fn a_link_to_the_host_comes_after_all_others() {
    let two = format!(
        "{CARD}host = \"rvs0\"\n{}host = \"rvs1\"\n",
        CARD.replace("\"a\"", "\"b\"").replace("01:00", "02:00")
    );
    let hosts = good(&two).network.hosts().to_vec();
    assert_eq!(hosts, [Host { link: 0, end: 2 }, Host { link: 1, end: 3 }]);
    assert!(good(CARD).network.hosts().is_empty());
    let twice = two.replace("rvs1", "rvs0");
    assert_eq!(line(&twice), "10:8: device rvs0 is there already (line 5)");
    let text = "[[link]]\nname = \"a\"\nkind = \"tap\"\nhost = \"rvs0\"\n";
    let found = "4:8: a tap link has no `host`, expected it to be left out: the host is at the \
                 device's other end";
    assert_eq!(line(text), found);
    let found = "4:8: an af_xdp link has no `host`, expected it to be left out: the host goes on \
                 using the device itself";
    assert_eq!(line(&text.replace("tap", "af_xdp")), found);
}

#[test]
fn what_cannot_be_meant_of_cards_is_refused() {
    let with = |more: &str| line(&format!("{CARD}{more}"));
    assert_eq!(with("side = \"left\"\n").split_once(": ").unwrap().0, "5:8");
    assert_eq!(with("rx_descriptors = 0\n"), "5:18: rx_descriptors is 0, expected 1 to 32768");
    assert_eq!(
        with("read = \"x\"\n"),
        "5:8: a dpdk link has no `read`, expected it to be left out"
    );
    assert_eq!(
        with("[dpdk]\neal = [\"-l\", \"1-3\"]\n"),
        "6:8: eal has \"-l\", which rvsd says itself: it follows [workers] cores"
    );
    for (said, word) in [("-l1-3", "-l1-3"), ("--lcore=0@1", "--lcore"), ("--main=0", "--main")] {
        let found = with(&format!("[dpdk]\neal = [\"{said}\"]\n"));
        let expected = format!("6:8: eal has {word:?}, which rvsd says itself: it follows ");
        assert_eq!(found.strip_prefix(&expected), Some("[workers] cores"), "{found}");
    }
    for (said, what) in [
        ("-h", "prints DPDK's arguments and ends"),
        ("--help", "prints DPDK's arguments and ends"),
        ("--proc-type=secondary", "makes rvsd wait for another process's memory; rvsd shares none"),
    ] {
        let word = said.split('=').next().unwrap();
        assert_eq!(
            with(&format!("[dpdk]\neal = [\"{said}\"]\n")),
            format!("6:8: eal has {word:?}, which {what}; expected it to be left out")
        );
    }
    good(&format!("{CARD}[dpdk]\neal = [\"--iova-mode=pa\", \"-n\", \"4\", \"-m\", \"64\"]\n"));
    assert_eq!(
        with("[[link]]\nname = \"b\"\nkind = \"dpdk\"\ndevice = \"0000:01:00.0,x=y\"\n"),
        "8:10: device 0000:01:00.0 is there already (line 4)"
    );
    let expected = "expected a PCI address like \"0000:01:00.0\" or a virtual device like \
                    \"net_tap0,iface=x\"";
    wrong(&[
        (
            "[[link]]\nname = \"a\"\nkind = \"dpdk\"\n",
            &format!("2:8: link \"a\" has no `device`, {expected}"),
        ),
        (
            "[[link]]\nname = \"a\"\nkind = \"dpdk\"\ndevice = \"\"\n",
            &format!("4:10: device is \"\", {expected}"),
        ),
        (
            "[[link]]\nname = \"a\"\nkind = \"tap\"\npromiscuous = true\n",
            "4:15: a tap link has no `promiscuous`, expected it to be left out",
        ),
    ]);
    let text = format!("[dpdk]\nno_huge = true\n{LINK}");
    assert_eq!(line(&text), "1:1: [dpdk] is of no use to tap links, expected it to be left out");
}
