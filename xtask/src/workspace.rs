//! Where things are in this checkout, and how cargo is called (shell).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The root of the checkout that this program was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies inside the workspace")
}

/// Everything that tests fetch, build beside cargo, or write: removed by removing `target`.
pub(crate) fn interop_target() -> PathBuf {
    root().join("target").join("interop")
}

/// The cargo that started us, so that a pinned toolchain stays pinned.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// A new directory for one run, below `target/interop/run`.
pub(crate) fn run_directory(name: &str) -> Result<PathBuf> {
    let directory = interop_target().join("run").join(format!("{}-{name}", std::process::id()));
    if directory.exists() {
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot clear {}", directory.display()))?;
    }
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

/// Removes a run's directory, or says where it is, for whoever looks why something failed.
pub(crate) fn leave_run_directory(directory: &Path, is_success: bool) {
    if is_success {
        std::fs::remove_dir_all(directory).ok();
    } else {
        println!("data and logs are kept in {}", directory.display());
    }
}

/// Finds a program on the search path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Continuous integration has no excuse for a missing client.
pub(crate) fn is_continuous_integration() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What a run writes and nobody need have run.
    const MADE_ON_DEMAND: &str = "docs/benchmarks/";

    fn texts(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir()
                && !name.starts_with('.')
                && !["target", "node_modules"].contains(&&*name)
            {
                texts(&path, found);
            } else if name.ends_with(".md") || name.ends_with(".rs") {
                found.push(path);
            }
        }
    }

    /// `docs/….md`, wherever it stands in a text.
    fn documents_in(text: &str) -> impl Iterator<Item = &str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        text.match_indices("docs/").filter_map(move |(at, _)| {
            let rest = text.get(at..)?;
            let word = rest.split(|c| !is_part(c)).next()?;
            let end = word.find(".md")?;
            word.get(..end + 3)
        })
    }

    #[test]
    fn every_document_that_is_referred_to_exists() {
        let mut files = Vec::new();
        texts(root(), &mut files);
        let mut references = 0;
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for document in documents_in(&text) {
                references += 1;
                let exists = root().join(document).exists() || document.starts_with(MADE_ON_DEMAND);
                assert!(exists, "{} refers to {document}, which does not exist", file.display());
            }
        }
        assert!(references > 10, "only {references} references were found");
    }
}
