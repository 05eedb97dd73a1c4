//! The page of the manual that says where rvs differs from Linux on purpose: what stands behind the
//! mark DIFFERS in comments, so that nobody changes the one and forgets the other.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use crate::source::{Source, files, without_tests};
use crate::workspace::Workspace;

/// The page.
const PAGE: &str = "docs/manual/differences.md";
/// The word that marks a difference.
const MARK: &str = concat!("DIF", "FERS");

/// What stands in front.
const HEAD: &str = "\
# Differences from Linux

rvs is held against recordings of Linux 6.1 (`cargo xtask conformance`) and can be held against the kernel
itself (`cargo xtask conformance --ask`). What differs does so on purpose. This page is made from the marks in
the code by `cargo xtask differences --bless`; each line ends with where it happens.
";

/// Folders, in the order of the page, and what they are about.
const PARTS: [(&str, &str); 7] = [
    ("engine/wire", "Packets"),
    ("engine/plane", "The way of a packet"),
    ("conntrack", "Connections"),
    ("schedulers", "Schedulers"),
    ("engine/control", "Services and sysctls"),
    ("engine/netlink", "The kernel's control protocol"),
    ("tools/rvsadm", "rvsadm"),
];

/// A difference, as the code tells it.
#[derive(Debug, Eq, PartialEq)]
struct Difference {
    path: String,
    text: String,
}

/// Why the page is not what the code says.
///
/// # Errors
///
/// Files cannot be read.
pub fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let there = fs::read_to_string(workspace.root.join(PAGE)).unwrap_or_default();
    if there == page(&files(workspace)?) {
        return Ok(Vec::new());
    }
    Ok(vec![format!("{PAGE} is not what the code says: cargo xtask differences --bless")])
}

/// Writes the page.
///
/// # Errors
///
/// Files cannot be read, or the page cannot be written.
pub fn bless(workspace: &Workspace) -> Result<()> {
    fs::write(workspace.root.join(PAGE), page(&files(workspace)?)).context(PAGE)
}

fn page(files: &[Source]) -> String {
    let code = files.iter().filter(|source| source.is("rs"));
    let all: Vec<Difference> = code.flat_map(marked).collect();
    let mut page = HEAD.to_owned();
    for (folder, title) in PARTS {
        let here = |it: &&Difference| it.path.starts_with(&format!("{folder}/"));
        let mut lines = all.iter().filter(here).peekable();
        if lines.peek().is_some() {
            let _always = write!(page, "\n## {title}\n\n");
        }
        for Difference { path, text } in lines {
            let _always = writeln!(page, "- {text} ([`{path}`](../../{path}))");
        }
    }
    page
}

/// What a file says in paragraphs of comments behind the mark.
fn marked(source: &Source) -> Vec<Difference> {
    let path = source.path.display().to_string();
    if !PARTS.iter().any(|(folder, _)| path.starts_with(&format!("{folder}/src/"))) {
        return Vec::new();
    }
    let mut paragraphs = vec![String::new()];
    for line in without_tests(&source.text) {
        let words =
            line.trim_start().strip_prefix("//").map(|it| it.trim_start_matches(['/', '!']).trim());
        match (words.filter(|it| !it.is_empty()), paragraphs.last_mut()) {
            (Some(words), Some(paragraph)) => {
                let gap = if paragraph.is_empty() { "" } else { " " };
                paragraph.push_str(gap);
                paragraph.push_str(words);
            }
            _ => paragraphs.push(String::new()),
        }
    }
    let told = |paragraph: &String| {
        let (_, behind) = paragraph.split_once(MARK)?;
        // Links of rustdoc lead nowhere on this page.
        let text = format!("Differs{behind}").replace("[`", "`").replace("`]", "`");
        Some(Difference { path: path.clone(), text })
    };
    paragraphs.iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_told_from_the_mark_to_its_end() {
        let text = format!(
            "/// Ends it.\n///\n/// As Linux does. {MARK} from Linux, where [`Conn`]s\n/// stay (ADR 7).\n///\n\
             /// More.\nfn end() {{}}\n// {MARK}: one.\n#[cfg(test)]\n// {MARK}: two.\n"
        );
        let source = Source { path: "conntrack/src/x.rs".into(), text };
        let texts: Vec<String> = marked(&source).into_iter().map(|it| it.text).collect();
        assert_eq!(texts, ["Differs from Linux, where `Conn`s stay (ADR 7).", "Differs: one."]);
    }

    #[test]
    fn every_folder_of_the_page_is_there() {
        let workspace = Workspace::find().unwrap();
        for (folder, _) in PARTS.iter().filter(|(folder, _)| *folder != "engine/netlink") {
            assert!(workspace.root.join(folder).join("src").is_dir(), "{folder}");
        }
    }
}
