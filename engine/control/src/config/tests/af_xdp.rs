//! The same about AF_XDP.

use super::*;

const LAN: &str = "[[link]]\nname = \"lan\"\nkind = \"af_xdp\"\n";

#[test]
fn a_device_is_shared_with_the_host_unless_told_otherwise() {
    let config = good(LAN);
    let lan = AfXdpLink {
        name: "lan".to_owned(),
        device: "lan".to_owned(),
        mac: config.network.interfaces()[0].mac,
        mtu: 1500,
        shared: true,
        zero_copy: None,
        busy_poll_us: None,
    };
    assert_eq!(config.links, Links::AfXdp(vec![lan.clone()]));
    assert_eq!(config.workers.idle, Idle::Adaptive);

    let more = "device = \"eth1\"\nmac = \"02:00:00:00:00:01\"\nmtu = 3822\nshared = false\n\
                zero_copy = true\nbusy_poll_us = 20\n";
    let config = good(&format!("{LAN}{more}"));
    let link = AfXdpLink {
        device: "eth1".to_owned(),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        mtu: 3822,
        shared: false,
        zero_copy: Some(true),
        busy_poll_us: Some(20),
        ..lan
    };
    assert_eq!(config.links, Links::AfXdp(vec![link]));
    assert_eq!(config.devices(), ["lan", "eth1"]);
}

#[test]
fn what_cannot_be_meant_of_shared_devices_is_refused() {
    let with = |more: &str| line(&format!("{LAN}{more}"));
    assert_eq!(with("mtu = 9000\n"), "4:7: mtu is 9000, expected 68 to 3822");
    assert_eq!(with("busy_poll_us = 0\n"), "4:16: busy_poll_us is 0, expected 1 to 1000");
    assert_eq!(
        with("read = \"x\"\n"),
        "4:8: an af_xdp link has no `read`, expected it to be left out"
    );
    assert_eq!(
        with("[[link]]\nname = \"b\"\nkind = \"af_xdp\"\ndevice = \"lan\"\n"),
        "7:10: device lan is there already (line 2)"
    );
    wrong(&[
        (
            "[[link]]\nname = \"a\"\nkind = \"tap\"\nshared = true\n",
            "4:10: a tap link has no `shared`, expected it to be left out",
        ),
        (
            "[[link]]\nname = \"a\"\nkind = \"dpdk\"\nzero_copy = true\n",
            "4:13: a dpdk link has no `zero_copy`, expected it to be left out",
        ),
    ]);
}
