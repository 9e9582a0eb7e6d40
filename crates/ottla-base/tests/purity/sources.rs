//! The sources of a room, for the tests that look for what must not be in them.

use std::path::Path;

/// All files below the room's `src`, each with its path and its text.
pub(crate) fn sources_of(room: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    gather(&Path::new(room).join("src"), &mut found);
    found
}

fn gather(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}
