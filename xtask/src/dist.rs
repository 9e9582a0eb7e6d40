//! The optimised build is what its users are promised: one small file that needs nothing but libc (shell).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::run_ok;
use crate::{ottla, workspace};

/// One crate after another, each optimised as a whole.
const BUILD_LIMIT: Duration = Duration::from_secs(60 * 60);
const LIMIT: Duration = Duration::from_secs(60);
const BYTES_MAX: u64 = 30 << 20;
/// The C library in all of its parts, the loader, and what the kernel adds. `libgcc_s` walks stacks, and comes with the
/// GNU C library, which loads it itself to cancel a thread.
const LIBC: [&str; 9] = [
    "linux-vdso.so",
    "linux-gate.so",
    "libc.so",
    "libm.so",
    "libpthread.so",
    "libdl.so",
    "librt.so",
    "libgcc_s.so",
    "ld-linux",
];

/// Builds it, and looks at it; says what it found.
pub(crate) fn check() -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["build", "--locked", "--profile", "dist", "--package", "ottla"]);
    let binary = ottla::build_with(command, BUILD_LIMIT)?;
    let bytes = std::fs::metadata(&binary).context("no optimised build")?.len();
    let libraries = libraries(&binary)?;
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    println!("{}: {mebibytes:.1} MiB, needs {}", binary.display(), libraries.join(" "));
    ensure!(bytes < BYTES_MAX, "{bytes} bytes are more than {BYTES_MAX}");
    let foreign = libraries.iter().find(|name| !is_libc(name));
    ensure!(foreign.is_none(), "it needs {}", foreign.map_or("", String::as_str));
    stands_alone(&binary)
}

/// What the loader brings in, by name.
fn libraries(binary: &Path) -> Result<Vec<String>> {
    let mut command = Command::new("ldd");
    command.arg(binary);
    let listed = run_ok(command, b"", LIMIT).context("the libraries can't be listed")?;
    Ok(named(&listed.stdout_text()))
}

fn named(listed: &str) -> Vec<String> {
    let first_words = listed.lines().filter_map(|line| line.split_whitespace().next());
    let names = first_words.filter_map(|path| path.rsplit('/').next());
    names.map(str::to_owned).collect()
}

fn is_libc(name: &str) -> bool {
    LIBC.iter().any(|prefix| name.starts_with(prefix))
}

/// Elsewhere, with no environment, it still runs.
fn stands_alone(binary: &Path) -> Result<()> {
    let directory = workspace::run_directory("dist")?;
    let copy: PathBuf = directory.join("ottla");
    std::fs::copy(binary, &copy).context("the build can't be copied")?;
    let mut command = Command::new(&copy);
    command.arg("--version").env_clear().current_dir(&directory);
    let said = run_ok(command, b"", LIMIT)?.stdout_text();
    std::fs::remove_dir_all(&directory).ok();
    ensure!(said.starts_with("ottla "), "it says {said:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_named_whatever_stands_behind_them() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffe)\n\
            \tlibzstd.so.1 => /lib/x86_64-linux-gnu/libzstd.so.1 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = named(listed);
        assert_eq!(found, ["linux-vdso.so.1", "libzstd.so.1", "ld-linux-x86-64.so.2"]);
        let foreign: Vec<_> = found.iter().filter(|name| !is_libc(name)).collect();
        assert_eq!(foreign, ["libzstd.so.1"]);
    }
}
