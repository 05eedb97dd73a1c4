//! Compiles `src/shim.c` against the system's libdpdk, if the feature `libdpdk` asks for it.

#[cfg(feature = "libdpdk")]
fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=src/shim.c");
    println!("cargo::rerun-if-changed=src/shim.h");
    libdpdk::build()
}

#[cfg(not(feature = "libdpdk"))]
fn main() {}

#[cfg(feature = "libdpdk")]
mod libdpdk {
    use std::process::Command;

    /// The oldest release whose names and layouts `shim.c` uses.
    const OLDEST: &str = "22.11";

    pub fn build() -> Result<(), String> {
        ask(&format!("--atleast-version={OLDEST}")).map_err(|_| {
            let found = ask("--modversion").unwrap_or_else(|_| "none".to_owned());
            format!(
                "libdpdk {OLDEST} or later is needed, pkg-config finds {found}; on Debian: \
                 apt-get install libdpdk-dev pkg-config"
            )
        })?;
        let mut compiler = cc::Build::new();
        compiler.file("src/shim.c").warnings(true).extra_warnings(true).std("gnu11");
        for flag in ask("--cflags")?.split_whitespace() {
            // DPDK's own headers are not ours to warn about.
            match flag.strip_prefix("-I") {
                Some(folder) => compiler.flag("-isystem").flag(folder),
                None => compiler.flag(flag),
            };
        }
        if cfg!(feature = "rings") {
            compiler.define("RVS_RINGS", None);
        }
        compiler.try_compile("rvs_dpdk_shim").map_err(|error| error.to_string())?;

        for flag in ask("--libs-only-L")?.split_whitespace() {
            println!("cargo::rustc-link-search=native={}", flag.trim_start_matches("-L"));
        }
        // Drivers are plug-ins that EAL loads by itself.
        let mut libraries = vec!["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_net", "rte_eal"];
        if cfg!(feature = "rings") {
            libraries.extend(["rte_net_ring", "rte_ring"]);
        }
        for library in libraries {
            println!("cargo::rustc-link-lib=dylib={library}");
        }
        Ok(())
    }

    /// What pkg-config says of libdpdk.
    fn ask(option: &str) -> Result<String, String> {
        let output = Command::new("pkg-config")
            .args([option, "libdpdk"])
            .output()
            .map_err(|error| format!("pkg-config: {error}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(format!("pkg-config {option} libdpdk: {}", String::from_utf8_lossy(&output.stderr)))
        }
    }
}
