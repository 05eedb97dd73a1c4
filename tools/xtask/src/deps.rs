//! Who may use whom, and where `unsafe` may stand. ARCHITECTURE.md says why.

use anyhow::Result;

use crate::source::{code, files};
use crate::workspace::{Package, Workspace};

/// What a crate may use of ours, beside what its tests use.
enum May {
    /// These.
    Use(&'static [&'static str]),
    /// Anything: nothing else of ours depends on it.
    UseAll,
}

const TABLE: [(&str, May); 20] = [
    ("rvs-wire", May::Use(&[])),
    ("rvs-cache", May::Use(&[])),
    ("rvs-io", May::Use(&["rvs-wire"])),
    ("rvs-dpdk", May::Use(&["rvs-io"])),
    ("rvs-model", May::Use(&["rvs-wire"])),
    ("rvs-schedulers", May::Use(&["rvs-model", "rvs-wire"])),
    ("rvs-conntrack", May::Use(&["rvs-model", "rvs-wire", "rvs-cache"])),
    ("rvs-api", May::Use(&["rvs-model", "rvs-wire"])),
    ("rvs-netlink", May::Use(&["rvs-api", "rvs-model"])),
    (
        "rvs-plane",
        May::Use(&[
            "rvs-io",
            "rvs-schedulers",
            "rvs-conntrack",
            "rvs-model",
            "rvs-wire",
            "rvs-cache",
        ]),
    ),
    (
        "rvs-control",
        May::Use(&[
            "rvs-plane",
            "rvs-api",
            "rvs-netlink",
            "rvs-conntrack",
            "rvs-schedulers",
            "rvs-model",
            "rvs-wire",
        ]),
    ),
    (
        "rvs-daemon",
        May::Use(&[
            "rvs-control",
            "rvs-plane",
            "rvs-io",
            "rvs-dpdk",
            "rvs-model",
            "rvs-wire",
            "rvs-api",
        ]),
    ),
    ("rvs-adm", May::Use(&["rvs-api", "rvs-model"])),
    ("rvs-preload", May::Use(&[])),
    ("rvs-pktgen", May::Use(&["rvs-io", "rvs-dpdk", "rvs-wire"])),
    ("rvs-conformance", May::UseAll),
    ("rvs-benches", May::UseAll),
    ("rvs-topology", May::Use(&["rvs-lab", "rvs-io", "rvs-api"])),
    ("rvs-lab", May::UseAll),
    ("xtask", May::Use(&[])),
];

/// Crates whose purpose is `unsafe`: links, the prefetch hint, and functions that C programs call.
const UNSAFE: [&str; 4] = ["rvs-io", "rvs-dpdk", "rvs-cache", "rvs-preload"];

/// A workspace of its own (ADR 0024): DPDK's frames again, on somebody else's devices.
const GUEST: &str = "engine/capsule";

const FORBID: &str = "#![forbid(unsafe_code)]";

/// Everything that is against these rules.
///
/// # Errors
///
/// Files cannot be read.
pub fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let mut complaints: Vec<String> =
        workspace.packages.iter().flat_map(|package| edges(workspace, package)).collect();
    for source in files(workspace)?.iter().filter(|source| source.is("rs")) {
        let path = workspace.root.join(&source.path);
        let owner = workspace.packages.iter().find(|package| {
            package.manifest_path.parent().is_some_and(|dir| path.starts_with(dir))
        });
        if owner.is_some_and(|package| UNSAFE.contains(&package.name.as_str()))
            || source.path.starts_with(GUEST)
        {
            continue;
        }
        let is_root = owner.is_some_and(|package| is_root(package, &path));
        if is_root && !source.text.lines().any(|line| line == FORBID) {
            complaints.push(format!("{}: no {FORBID}", source.path.display()));
        }
        for (number, line) in (1..).zip(source.text.lines()) {
            if has_unsafe(line) {
                complaints.push(format!("{}:{number}: unsafe", source.path.display()));
            }
        }
    }
    Ok(complaints)
}

fn is_root(package: &Package, path: &std::path::Path) -> bool {
    let built = |kind: &String| kind == "lib" || kind == "bin";
    package.targets.iter().any(|target| target.src_path == path && target.kind.iter().any(built))
}

fn edges(workspace: &Workspace, package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, may)) = TABLE.iter().find(|(known, _)| *known == name) else {
        return vec![format!("{name}: not in the table of tools/xtask/src/deps.rs")];
    };
    let May::Use(allowed) = may else { return Vec::new() };
    let ours = |name: &str| workspace.packages.iter().any(|package| package.name == name);
    let edges = package.dependencies.iter().filter(|edge| edge.kind.as_deref() != Some("dev"));
    let wrong = edges.filter(|e| ours(&e.name) && !allowed.contains(&e.name.as_str()));
    wrong.map(|edge| format!("{name}: may not use {}", edge.name)).collect()
}

/// Whether the keyword stands there, rather than the word in a text or an attribute.
fn has_unsafe(line: &str) -> bool {
    let words: Vec<&str> = code(line).split_whitespace().collect();
    words.windows(2).any(|pair| {
        let [first, second] = pair else { return false };
        first.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '"') == "unsafe"
            && ["{", "fn", "impl", "extern", "trait"].iter().any(|after| second.starts_with(after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn workspace(edges: &[(&str, Option<&str>)]) -> Workspace {
        let package = |name: &str, edges: &[(&str, Option<&str>)]| Package {
            name: name.to_owned(),
            manifest_path: "Cargo.toml".into(),
            dependencies: edges
                .iter()
                .map(|(name, kind)| Dependency {
                    name: (*name).to_owned(),
                    kind: kind.map(str::to_owned),
                })
                .collect(),
            targets: Vec::new(),
        };
        Workspace {
            root: ".".into(),
            target_directory: "target".into(),
            packages: vec![
                package("rvs-schedulers", edges),
                package("rvs-model", &[]),
                package("rvs-conntrack", &[]),
            ],
        }
    }

    fn of_schedulers(list: &[(&str, Option<&str>)]) -> Vec<String> {
        let workspace = workspace(list);
        edges(&workspace, &workspace.packages[0])
    }

    #[test]
    fn an_edge_outside_the_table_is_named() {
        assert_eq!(of_schedulers(&[("rvs-model", None)]), [""; 0]);
        let wrong = of_schedulers(&[("rvs-conntrack", None), ("rvs-conntrack", Some("build"))]);
        assert_eq!(wrong, ["rvs-schedulers: may not use rvs-conntrack"; 2]);
    }

    #[test]
    fn tests_and_other_peoples_crates_are_free() {
        assert_eq!(of_schedulers(&[("rvs-conntrack", Some("dev")), ("serde", None)]), [""; 0]);
    }

    #[test]
    fn a_crate_that_nobody_thought_of_is_an_error() {
        let mut workspace = workspace(&[]);
        workspace.packages[0].name = "rvs-new".to_owned();
        assert_eq!(edges(&workspace, &workspace.packages[0]).len(), 1);
    }

    #[test]
    fn unsafe_is_found_as_a_keyword_only() {
        let keyword = "unsafe";
        for rest in [" { x }", " fn f()", " impl Send for X {}", " extern \"C\" {"] {
            assert!(has_unsafe(&format!("    {keyword}{rest}")), "{rest}");
        }
        assert!(has_unsafe(&format!("let x = ({keyword} {{ y }});")));
        assert!(!has_unsafe("// unsafe { no }"));
        assert!(!has_unsafe("#![forbid(unsafe_code)]"));
        assert!(!has_unsafe("an unsafe thing"));
    }
}
