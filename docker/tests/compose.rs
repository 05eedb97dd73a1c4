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
