//! What this machine has and lacks for DPDK, and the command that supplies it.
//!
//! Everything is read from `/proc` and `/sys`, below a root that tests replace.

use std::fs;
use std::path::{Path, PathBuf};

/// PCI class of network controllers, as sysfs writes it.
const NETWORK_CLASS: &str = "0x02";
/// Kernel drivers that hand a card to user space.
const FOR_USER_SPACE: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];
/// Kernel drivers that share a card with DPDK's.
const SHARED: [&str; 3] = ["mlx5_core", "mlx4_core", "mana"];

/// A machine.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

/// Huge pages of one size on one node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Pages {
    kilobytes: u64,
    free: u64,
    total: u64,
}

impl Host {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// One that is described below `root`.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// CPUs that this process may run on, as in `0-3,8`.
    #[must_use]
    pub fn allowed_cpus(&self) -> String {
        let status = self.read("proc/self/status");
        let mut lines = status.lines();
        let list = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        list.map_or_else(|| "0".to_owned(), |list| list.trim().to_owned())
    }

    /// The NUMA node of a CPU.
    #[must_use]
    pub fn node_of_cpu(&self, cpu: usize) -> Option<u16> {
        self.nodes().into_iter().find(|node| {
            self.root.join(format!("sys/devices/system/node/node{node}/cpu{cpu}")).exists()
        })
    }

    /// The NUMA node of a device as it is configured; node 0 of a virtual one, and where there is but
    /// one.
    #[must_use]
    pub fn node_of(&self, device: &str) -> u16 {
        let address = pci_address(device).unwrap_or_default();
        let node = self.read(&format!("sys/bus/pci/devices/{address}/numa_node"));
        // -1 is the kernel's "none".
        node.trim().parse().unwrap_or_default()
    }

    /// What to do where `needs`, megabytes by node, exceed the free huge pages; `None` if they do not.
    #[must_use]
    pub fn lacking_pages(&self, needs: &[(u16, u64)]) -> Option<String> {
        let nodes = self.nodes();
        let (node, needed) = needs.iter().copied().find(|(node, needed)| {
            let free: u64 = self.pages(*node).iter().map(|p| p.kilobytes * p.free).sum();
            free < needed * 1024
        })?;
        let pages = self.pages(node);
        let Some(small) = pages.first() else {
            return Some(
                "this kernel has no huge pages; set no_huge = true under [dpdk]".to_owned(),
            );
        };
        let free: u64 = pages.iter().map(|p| p.kilobytes * p.free).sum::<u64>() / 1024;
        let missing = (needed * 1024).div_ceil(small.kilobytes).saturating_sub(small.free);
        let total = small.total + missing;
        let command = if nodes.len() > 1 {
            let kilobytes = small.kilobytes;
            format!(
                "echo {total} > /sys/devices/system/node/node{node}/hugepages/\
                 hugepages-{kilobytes}kB/nr_hugepages"
            )
        } else {
            format!("sysctl -w vm.nr_hugepages={total}")
        };
        Some(format!(
            "DPDK needs {needed} MB of huge pages on node {node}, and {free} MB are free; run: \
             {command} (or set no_huge = true under [dpdk])"
        ))
    }

    /// Why EAL may have refused to start with this errno.
    #[must_use]
    pub fn explain_eal(&self, errno: i32) -> String {
        let words = std::io::Error::from_raw_os_error(errno.saturating_abs()).to_string();
        if self.is_root() {
            return format!("{words}; are the arguments under [dpdk] eal right?");
        }
        format!(
            "{words}; rvsd is not root: huge pages and cards take it (or, with vfio-pci, access to \
             /dev/vfio/* and `ulimit -l unlimited`)"
        )
    }

    /// What to do about a device that DPDK does not have. `address` is its PCI address in full, if
    /// it is one; `is_refused` says that there was a driver for it, which refused.
    #[must_use]
    pub fn explain_missing(&self, address: Option<&str>, is_refused: bool) -> String {
        let Some(address) = address else {
            if is_refused {
                let root = if self.is_root() { "" } else { "; rvsd is not root, which most take" };
                return format!("its driver does not take these arguments{root}");
            }
            return "expected a PCI address like 0000:01:00.0, or a virtual device and its \
                    arguments like net_tap0,iface=rvs0"
                .to_owned();
        };
        let card = self.root.join("sys/bus/pci/devices").join(address);
        if !card.exists() {
            let cards = self.cards();
            return if cards.is_empty() {
                "no such PCI device, and this machine has no network card on PCI".to_owned()
            } else {
                format!("no such PCI device; network cards are {}", cards.join(", "))
            };
        }
        let class = self.read(&format!("sys/bus/pci/devices/{address}/class"));
        if !class.is_empty() && !class.starts_with(NETWORK_CLASS) {
            return format!("it is no network card; network cards are {}", self.cards().join(", "));
        }
        match self.driver_of(address).as_deref() {
            Some("vfio-pci") if !self.root.join("dev/vfio/vfio").exists() => {
                "vfio-pci has it, but there is no /dev/vfio/vfio; run: modprobe vfio-pci".to_owned()
            }
            Some(driver) if FOR_USER_SPACE.contains(&driver) => format!(
                "{driver} has it, so its DPDK driver is missing or may not open it; look at \
                 `dpdk-devbind.py -s`, at the permissions of /dev/vfio, and whether the IOMMU is on"
            ),
            Some(driver) if SHARED.contains(&driver) => format!(
                "{driver} has it, and DPDK's driver of that name is missing; install librte-net-mlx5"
            ),
            Some(driver) => format!(
                "the kernel's {driver} has it; run: modprobe vfio-pci; dpdk-devbind.py -b vfio-pci \
                 {address}"
            ),
            None => format!(
                "no driver has it; run: modprobe vfio-pci; dpdk-devbind.py -b vfio-pci {address}"
            ),
        }
    }

    /// Whether this process may do what root may, as far as its user goes.
    fn is_root(&self) -> bool {
        self.read("proc/self/status").lines().any(|line| {
            line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
        })
    }

    /// Numbers of the NUMA nodes; node 0 at least.
    fn nodes(&self) -> Vec<u16> {
        let folder = self.root.join("sys/devices/system/node");
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("node")?.parse().ok();
        let mut nodes: Vec<u16> = names.filter_map(|entry| number(entry.file_name())).collect();
        nodes.sort_unstable();
        if nodes.is_empty() { vec![0] } else { nodes }
    }

    /// Huge pages of a node, the smallest first.
    fn pages(&self, node: u16) -> Vec<Pages> {
        let of_node = format!("sys/devices/system/node/node{node}/hugepages");
        let folder =
            if self.root.join(&of_node).exists() { &of_node } else { "sys/kernel/mm/hugepages" };
        let names = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        let mut pages: Vec<Pages> = names
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let kilobytes =
                    name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
                let count =
                    |file| self.read(&format!("{folder}/{name}/{file}")).trim().parse().ok();
                Some(Pages {
                    kilobytes,
                    free: count("free_hugepages")?,
                    total: count("nr_hugepages")?,
                })
            })
            .collect();
        pages.sort_unstable_by_key(|pages| pages.kilobytes);
        pages
    }

    /// Network cards on PCI, each with the kernel driver that has it.
    fn cards(&self) -> Vec<String> {
        let names =
            fs::read_dir(self.root.join("sys/bus/pci/devices")).into_iter().flatten().flatten();
        let mut cards: Vec<String> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|address| {
                self.read(&format!("sys/bus/pci/devices/{address}/class"))
                    .starts_with(NETWORK_CLASS)
            })
            .map(|address| match self.driver_of(&address) {
                Some(driver) => format!("{address} ({driver})"),
                None => address,
            })
            .collect();
        cards.sort_unstable();
        cards
    }

    fn driver_of(&self, address: &str) -> Option<String> {
        let link = self.root.join(format!("sys/bus/pci/devices/{address}/driver"));
        fs::read_link(link).ok()?.file_name()?.to_str().map(str::to_owned)
    }

    /// A file's text; nothing if there is none.
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }
}

/// The PCI address that a device is configured by, in full; `None` if it is a virtual one.
#[must_use]
pub fn pci_address(device: &str) -> Option<String> {
    let address = device.split(',').next()?;
    let (bus, function) = address.rsplit_once('.')?;
    let parts: Vec<_> = bus.split(':').collect();
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_hexdigit());
    if !is_hex(function) || !parts.iter().all(|part| is_hex(part)) {
        return None;
    }
    match parts.as_slice() {
        [_, _, _] => Some(address.to_ascii_lowercase()),
        [_, _] => Some(format!("0000:{}", address.to_ascii_lowercase())),
        _ => None,
    }
}

/// What DPDK calls a device: its PCI address in full, or the name of a virtual one.
#[must_use]
pub fn name_of(device: &str) -> String {
    pci_address(device).unwrap_or_else(|| device.split(',').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A machine in a folder, gone with the test.
    struct Made(PathBuf, Host);

    impl Made {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("rvs-host-{name}-{}", std::process::id()));
            fs::create_dir_all(&root).unwrap();
            Self(root.clone(), Host::at(&root))
        }

        fn file(&self, path: &str, text: &str) -> &Self {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn pages(&self, node: u16, kilobytes: u64, free: u64, total: u64) -> &Self {
            let folder =
                format!("sys/devices/system/node/node{node}/hugepages/hugepages-{kilobytes}kB");
            self.file(&format!("{folder}/free_hugepages"), &format!("{free}\n"))
                .file(&format!("{folder}/nr_hugepages"), &format!("{total}\n"))
        }

        fn card(&self, address: &str, driver: Option<&str>) -> &Self {
            let folder = format!("sys/bus/pci/devices/{address}");
            self.file(&format!("{folder}/class"), "0x020000\n");
            if let Some(driver) = driver {
                symlink(format!("../../drivers/{driver}"), self.0.join(folder).join("driver"))
                    .unwrap();
            }
            self
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        for (device, address) in [
            ("0000:01:00.0", Some("0000:01:00.0")),
            ("01:00.0", Some("0000:01:00.0")),
            ("0000:AF:00.1,dv_flow_en=0", Some("0000:af:00.1")),
            ("net_tap0,iface=a.b", None),
            ("net_pcap0,rx_pcap=a:b.c", None),
            ("", None),
        ] {
            assert_eq!(pci_address(device).as_deref(), address, "{device}");
        }
        assert_eq!(name_of("net_tap0,iface=x"), "net_tap0");
    }

    #[test]
    fn missing_huge_pages_are_told_with_the_command_that_makes_them() {
        let made = Made::new("pages");
        made.pages(0, 2048, 3, 10).pages(0, 1_048_576, 0, 0);
        assert_eq!(made.1.lacking_pages(&[(0, 6)]), None);
        assert_eq!(
            made.1.lacking_pages(&[(0, 64)]).unwrap(),
            "DPDK needs 64 MB of huge pages on node 0, and 6 MB are free; run: sysctl -w \
             vm.nr_hugepages=39 (or set no_huge = true under [dpdk])"
        );
        made.pages(1, 2048, 0, 0);
        let lack = made.1.lacking_pages(&[(0, 6), (1, 10)]).unwrap();
        assert!(lack.contains("10 MB of huge pages on node 1, and 0 MB are free"), "{lack}");
        assert!(
            lack.contains("echo 5 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/"),
            "{lack}"
        );
    }

    #[test]
    fn larger_pages_count_as_well() {
        let made = Made::new("large");
        made.pages(0, 2048, 0, 0).pages(0, 1_048_576, 1, 1);
        assert_eq!(made.1.lacking_pages(&[(0, 1000)]), None);
        let none = Made::new("none");
        assert!(none.1.lacking_pages(&[(0, 1)]).unwrap().contains("no_huge = true"));
    }

    #[test]
    fn a_card_that_the_kernel_has_is_told_with_the_command_that_binds_it() {
        let made = Made::new("cards");
        made.card("0000:01:00.0", Some("ixgbe")).card("0000:02:00.0", None);
        made.card("0000:03:00.0", Some("vfio-pci"));
        let said = |address| made.1.explain_missing(Some(address), false);
        assert_eq!(
            said("0000:01:00.0"),
            "the kernel's ixgbe has it; run: modprobe vfio-pci; dpdk-devbind.py -b vfio-pci \
             0000:01:00.0"
        );
        assert!(said("0000:02:00.0").starts_with("no driver has it; run: "));
        assert!(said("0000:03:00.0").contains("modprobe vfio-pci"));
        assert_eq!(
            said("0000:09:00.0"),
            "no such PCI device; network cards are 0000:01:00.0 (ixgbe), 0000:02:00.0, \
             0000:03:00.0 (vfio-pci)"
        );
        assert!(made.1.explain_missing(None, false).contains("net_tap0,iface=rvs0"));
    }

    #[test]
    fn nodes_and_cpus_are_read_from_the_kernel() {
        let made = Made::new("nodes");
        made.file("proc/self/status", "Name:\trvsd\nUid:\t0\t0\t0\t0\nCpus_allowed_list:\t0-3,8\n");
        made.file("sys/devices/system/node/node1/cpu5/x", "");
        made.file("sys/bus/pci/devices/0000:01:00.0/numa_node", "1\n");
        made.file("sys/bus/pci/devices/0000:02:00.0/numa_node", "-1\n");
        assert_eq!(made.1.allowed_cpus(), "0-3,8");
        assert_eq!(made.1.node_of_cpu(5), Some(1));
        assert_eq!((made.1.node_of_cpu(6), made.1.nodes()), (None, vec![1]));
        assert_eq!((made.1.node_of("01:00.0,x=y"), made.1.node_of("0000:02:00.0")), (1, 0));
        assert_eq!(made.1.node_of("net_tap0,iface=x"), 0);
    }

    #[test]
    fn whoever_is_not_root_is_told_so() {
        let made = Made::new("root");
        made.file("proc/self/status", "Uid:\t0\t0\t0\t0\n");
        assert!(made.1.explain_eal(-libc::EACCES).contains("[dpdk] eal"));
        made.file("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\n");
        let said = made.1.explain_eal(libc::EACCES);
        assert!(said.starts_with("Permission denied") && said.contains("not root"), "{said}");
    }
}
