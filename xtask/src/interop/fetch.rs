//! Fetches what the clients need into `target/interop`, once per change of its description (shell).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::run_ok;
use crate::workspace;

const FETCH_LIMIT: Duration = Duration::from_secs(300);
const RUST_BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The jars of Apache Kafka: broker, tools, clients.
pub(crate) fn kafka_jars() -> Result<PathBuf> {
    let pom = workspace::root().join("interop/java/pom.xml");
    let lib = workspace::interop_target().join("java/lib");
    once_per(&pom, &lib, || {
        let mut command = Command::new("mvn");
        command
            .args(["--quiet", "--batch-mode", "--file"])
            .arg(&pom)
            .arg("dependency:copy-dependencies")
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", lib.display()));
        run_ok(command, b"", FETCH_LIMIT).context("cannot fetch Apache Kafka's jars").map(drop)
    })?;
    Ok(lib)
}

/// Our Java adapter, compiled against those jars.
pub(crate) fn java_classes() -> Result<PathBuf> {
    let jars = kafka_jars()?;
    let source = workspace::root().join("interop/java/Adapter.java");
    let classes = workspace::interop_target().join("java/classes");
    once_per(&source, &classes, || {
        let mut command = Command::new("javac");
        command.args(["-nowarn", "-cp"]).arg(jars.join("*")).arg("-d").arg(&classes).arg(&source);
        run_ok(command, b"", FETCH_LIMIT).context("cannot compile the Java adapter").map(drop)
    })?;
    Ok(classes)
}

/// A Python that has confluent-kafka.
pub(crate) fn python() -> Result<PathBuf> {
    let requirements = workspace::root().join("interop/python/requirements.txt");
    let venv = workspace::interop_target().join("venv");
    let python = venv.join("bin/python");
    once_per(&requirements, &venv, || {
        let mut command = Command::new("python3");
        command.args(["-m", "venv", "--clear"]).arg(&venv);
        run_ok(command, b"", FETCH_LIMIT).context("cannot make a Python environment")?;
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        command.arg("--requirement").arg(&requirements);
        run_ok(command, b"", FETCH_LIMIT).context("cannot install confluent-kafka").map(drop)
    })?;
    Ok(python)
}

/// The rdkafka adapter: builds librdkafka from source, so it lives outside the workspace.
pub(crate) fn rust_adapter() -> Result<PathBuf> {
    let target = workspace::interop_target().join("rust");
    let mut command = workspace::cargo();
    command
        .args(["build", "--quiet", "--locked", "--release"])
        .arg("--manifest-path")
        .arg(workspace::root().join("interop/rust/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        // Flags meant for the product must not rebuild a C library.
        .env_remove("RUSTFLAGS");
    run_ok(command, b"", RUST_BUILD_LIMIT).context("cannot build the rdkafka adapter")?;
    Ok(target.join("release/rdkafka-adapter"))
}

/// Runs `make` unless it succeeded before for the same text of `description`.
fn once_per(description: &Path, made: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = fs::read_to_string(description)
        .with_context(|| format!("cannot read {}", description.display()))?;
    let stamp = made.with_extension("made-from");
    if made.exists() && fs::read_to_string(&stamp).is_ok_and(|last| last == wanted) {
        return Ok(());
    }
    fs::remove_dir_all(made).ok();
    fs::create_dir_all(made).with_context(|| format!("cannot create {}", made.display()))?;
    make()?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
