//! What makes a room pure: no clock, file, socket, thread or random source in its sources or its tree. For the tests of
//! rooms; each names itself.

mod sources;

use std::process::Command;

use sources::sources_of;

/// The sources of the room, more than `files_min`, name nothing that has effects, and say what they are.
pub(crate) fn check_sources(room: &str, files_min: usize) {
    let files = sources_of(room);
    assert!(files.len() > files_min);
    // A length of time is a number.
    let banned =
        ["Instant", "SystemTime", "std::fs", "std::net", "std::thread", "std::env", "HashMap"];
    for (path, text) in files {
        for banned in banned {
            assert!(!text.contains(banned), "{path} uses {banned}");
        }
        assert!(text.starts_with("//! "), "{path} does not say what it is");
    }
}

/// The packages that the room is built from hold no runtime and no source of chance.
pub(crate) fn check_tree(room: &str, package: &str) {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none"])
        .current_dir(room)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    for banned in ["tokio ", "getrandom ", "rand ", "mio ", "rustix ", "libc "] {
        assert!(!tree.lines().any(|line| line.starts_with(banned)), "{banned} in\n{tree}");
    }
}
