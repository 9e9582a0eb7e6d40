//! What makes this room pure: no clock, file, socket, thread or random source in its sources or its tree.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_sources_name_nothing_that_has_effects() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 10);
    for (path, text) in files {
        for banned in
            ["Instant", "SystemTime", "std::fs", "std::net", "std::thread", "std::env", "HashMap"]
        {
            assert!(!text.contains(banned), "{path} uses {banned}");
        }
        assert!(text.starts_with("//! "), "{path} does not say what it is");
    }
}

#[test]
fn the_tree_holds_no_runtime_and_no_entropy() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "-p", "ottla-metadata", "-e", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    for banned in ["tokio ", "getrandom ", "rand ", "mio ", "rustix ", "libc "] {
        assert!(!tree.lines().any(|line| line.starts_with(banned)), "{banned} in\n{tree}");
    }
}
