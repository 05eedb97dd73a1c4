//! The compose files in the repository are what the topologies say.

use std::env;
use std::fs;
use std::path::Path;

use rvs_lab::compose::Files;
use rvs_lab::topology::{BUILT_IN, Topology};

#[test]
fn compose_files_are_current() {
    let labs = Path::new(env!("CARGO_MANIFEST_DIR")).join("labs");
    let bless = env::var_os("RVS_BLESS").is_some();
    for (name, _) in BUILT_IN {
        let files = Files::of(&Topology::load(name).unwrap()).unwrap();
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
    assert!(jumbo.fits_containers());
    let files = Files::of(&jumbo).unwrap();
    let mtu = "com.docker.network.driver.mtu: \"9000\"";
    assert_eq!(files.compose.matches(mtu).count(), 2, "{}", files.compose);
    assert_eq!(files.rvsd.matches("mtu = 9000").count(), 2, "{}", files.rvsd);
    assert!(!Topology::load("vlan").unwrap().fits_containers());
}
