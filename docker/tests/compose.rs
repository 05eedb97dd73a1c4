//! The compose files in the repository are what the topologies say.

use std::env;
use std::fs;
use std::path::Path;

use rvs_lab::compose::Files;
use rvs_lab::director::Driver;
use rvs_lab::topology::{BUILT_IN, Topology};

#[test]
fn compose_files_are_current() {
    let labs = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs");
    let bless = env::var_os("RVS_BLESS").is_some();
    for (name, _) in BUILT_IN {
        let files = Files::of(&Topology::load(name).unwrap(), Driver::Tap).unwrap();
        let dir = labs.join(name);
        for (file, text) in files.named() {
            let path = dir.join(file);
            if bless {
                fs::create_dir_all(&dir).unwrap();
                fs::write(&path, text).unwrap();
            }
            let there = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(there, text, "{name}/{file}: write it anew with RVS_BLESS=1");
        }
    }
}

#[test]
fn longer_packets_are_asked_of_the_engines_networks() {
    let jumbo = Topology::load("jumbo").unwrap();
    assert!(jumbo.fits_containers(Driver::Tap) && !jumbo.fits_containers(Driver::Dpdk));
    let files = Files::of(&jumbo, Driver::Tap).unwrap();
    let mtu = "com.docker.network.driver.mtu: \"9000\"";
    assert_eq!(files.compose.matches(mtu).count(), 2, "{}", files.compose);
    assert_eq!(files.rvsd.matches("mtu = 9000").count(), 2, "{}", files.rvsd);
    assert!(!Topology::load("apart").unwrap().fits_containers(Driver::Tap));
}

#[test]
fn a_cables_program_is_a_container_in_the_directors_network() {
    let files = Files::of(&Topology::load("vlan").unwrap(), Driver::Tap).unwrap();
    let wire = files.compose.split_once("  wire-servers:\n").unwrap().1;
    let wire = wire.split_once("\n\n").unwrap().0;
    assert!(wire.contains("network_mode: service:director"), "{wire}");
    assert!(wire.contains("command: [wire, vlan, servers, --insert]"), "{wire}");
    assert!(!files.compose.contains("wire-client"), "a plain cable has none");
    assert!(files.rvsd.contains("[[link.vlan]]\nid = 100"), "{}", files.rvsd);
}
