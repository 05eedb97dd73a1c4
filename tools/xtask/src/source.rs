//! The tracked files, and Rust text without what is not code.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// A tracked file that is text.
#[derive(Debug)]
pub struct Source {
    /// From the root on.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

impl Source {
    /// Whether its name ends so.
    #[must_use]
    pub fn is(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|found| found == extension)
    }
}

/// All tracked and new text files, as git sees them.
///
/// # Errors
///
/// git is not there, or this is no checkout.
pub fn files(workspace: &Workspace) -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.current_dir(&workspace.root).output().context("git")?;
    ensure!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    let paths = names.split_terminator('\0').map(PathBuf::from);
    // A binary file is not UTF-8; a deleted one is still listed.
    let read = |path: PathBuf| {
        let text = fs::read_to_string(workspace.root.join(&path)).ok()?;
        Some(Source { path, text })
    };
    Ok(paths.filter_map(read).collect())
}

/// A line without its comment.
#[must_use]
pub fn code(line: &str) -> &str {
    line.find("//").and_then(|at| line.get(..at)).unwrap_or(line)
}

/// The lines in front of the module of unit tests, which stands last.
pub fn without_tests(text: &str) -> impl Iterator<Item = &str> {
    let is_end = |line: &&str| !line.starts_with("#[cfg(test)]");
    text.lines().take_while(is_end)
}
