//! Compiles `src/shim.c` against the system's libdpdk, which pkg-config finds.

use std::process::Command;

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=src/shim.c");
    let mut compiler = cc::Build::new();
    compiler.file("src/shim.c").std("gnu11");
    for flag in ask("--cflags")?.split_whitespace() {
        match flag.strip_prefix("-I") {
            Some(folder) => compiler.flag("-isystem").flag(folder),
            None => compiler.flag(flag),
        };
    }
    compiler.try_compile("capsule_shim").map_err(|error| error.to_string())?;
    for flag in ask("--libs-only-L")?.split_whitespace() {
        println!("cargo::rustc-link-search=native={}", flag.trim_start_matches("-L"));
    }
    for library in ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal", "numa"] {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    Ok(())
}

fn ask(option: &str) -> Result<String, String> {
    let output = Command::new("pkg-config")
        .args([option, "libdpdk >= 22.11"])
        .output()
        .map_err(|error| format!("pkg-config: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err("libdpdk 22.11 or later is needed; on Debian: apt-get install libdpdk-dev pkg-config"
            .to_owned())
    }
}
