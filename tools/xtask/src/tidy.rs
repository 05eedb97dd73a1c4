//! What a reader should not have to find: files without end, work without a number, paths of
//! somebody's machine.

use anyhow::Result;

use crate::source::{Source, files, without_tests};
use crate::workspace::Workspace;

/// Lines of a file without its unit tests. A file fits a head; beyond this it is two ideas.
const LINES_MAX: usize = 700;

/// Where files are recordings, not text of ours.
const RECORDED: &str = "goldens";

/// Folders that are on somebody's machine. In two parts, so that this file has none.
const MACHINE: [&str; 4] =
    [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/tm", "p/")];

/// Everything that is untidy.
///
/// # Errors
///
/// Files cannot be read.
pub fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let files = files(workspace)?;
    let ours = files.iter().filter(|source| !source.path.iter().any(|part| part == RECORDED));
    Ok(ours.flat_map(of_file).collect())
}

fn of_file(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let path = source.path.display();
    let lines = without_tests(&source.text).count();
    let is_test = source.path.iter().any(|part| part == "tests" || part == "tests.rs");
    if source.is("rs") && !is_test && lines > LINES_MAX {
        complaints.push(format!("{path}: {lines} lines without tests, {LINES_MAX} at most"));
    }
    for (number, line) in (1..).zip(source.text.lines()) {
        if source.is("rs") && is_unfinished(line) {
            complaints.push(format!("{path}:{number}: unfinished, and no issue's number"));
        }
        if let Some(folder) = MACHINE.iter().find(|folder| has_folder(line, folder)) {
            complaints.push(format!("{path}:{number}: {folder} is on somebody's machine"));
        }
    }
    complaints
}

/// Whether `line` names something in the absolute folder `folder`.
fn has_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}".contains(c))
    })
}

/// Whether a mark of unfinished work stands there without `#` and a number.
fn is_unfinished(line: &str) -> bool {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimple", "mented!("),
    ];
    let mut numbers = line.split('#').skip(1);
    marks.iter().any(|mark| line.contains(mark))
        && !numbers.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: String) -> Vec<String> {
        of_file(&Source { path: "src/x.rs".into(), text })
    }

    #[test]
    fn tests_do_not_count_as_lines() {
        let tests = "#[cfg(test)]\n".to_owned() + &"x\n".repeat(LINES_MAX);
        assert_eq!(rust("x\n".repeat(LINES_MAX) + &tests), [""; 0]);
        assert_eq!(rust("x\n".repeat(LINES_MAX + 1) + &tests).len(), 1);
    }

    #[test]
    fn unfinished_work_has_a_number() {
        let mark = MACHINE.len().to_string().replace('4', concat!("TO", "DO"));
        assert_eq!(rust(format!("// {mark}: later")).len(), 1);
        assert_eq!(rust(format!("// {mark} #12: later")), [""; 0]);
    }

    #[test]
    fn absolute_folders_are_found_and_relative_ones_are_not() {
        for folder in MACHINE {
            assert_eq!(rust(format!("\"{folder}x\"")).len(), 1, "{folder}");
            assert_eq!(rust(format!("\"target{folder}x\"")), [""; 0], "{folder}");
        }
    }
}
