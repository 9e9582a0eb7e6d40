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
    copy_jars(&pom, &lib)?;
    Ok(lib)
}

/// The jars that a pom names, and those that they need.
pub(crate) fn copy_jars(pom: &Path, lib: &Path) -> Result<()> {
    copy_jars_of(pom, lib, &[])
}

fn copy_jars_of(pom: &Path, lib: &Path, options: &[&str]) -> Result<()> {
    once_per(&[pom], lib, || {
        let mut command = Command::new("mvn");
        command
            .args(["--quiet", "--batch-mode", "--file"])
            .arg(pom)
            .arg("dependency:copy-dependencies")
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", lib.display()))
            .args(options);
        run_ok(command, b"", FETCH_LIMIT)
            .with_context(|| format!("cannot fetch the jars of {}", pom.display()))
            .map(drop)
    })
}

/// Our Java adapter, compiled against those jars.
pub(crate) fn java_classes() -> Result<PathBuf> {
    let jars = kafka_jars()?;
    let source = workspace::root().join("interop/java/Adapter.java");
    let classes = workspace::interop_target().join("java/classes");
    once_per(&[&source], &classes, || compile(&jars, &classes, &source))?;
    Ok(classes)
}

/// The Java adapter against the clients of an old version; gives its jars and its classes.
pub(crate) fn old_java(version: &str) -> Result<(PathBuf, PathBuf)> {
    let pom = workspace::root().join("interop/java/old/pom.xml");
    let source = workspace::root().join("interop/java/Adapter.java");
    let directory = workspace::interop_target().join(format!("java-{version}"));
    let (lib, classes) = (directory.join("lib"), directory.join("classes"));
    copy_jars_of(&pom, &lib, &[&format!("-Dkafka.version={version}")])?;
    once_per(&[&source], &classes, || compile(&lib, &classes, &source))?;
    Ok((lib, classes))
}

/// Connect and Streams, and our word count; gives their jars and its classes.
pub(crate) fn applications() -> Result<(PathBuf, PathBuf)> {
    let source = workspace::root().join("interop/java/apps/WordCount.java");
    let directory = workspace::interop_target().join("applications");
    let (lib, classes) = (directory.join("lib"), directory.join("classes"));
    copy_jars(&workspace::root().join("interop/java/apps/pom.xml"), &lib)?;
    once_per(&[&source], &classes, || compile(&lib, &classes, &source))?;
    Ok((lib, classes))
}

/// Java's clients as recorders, for clusters under faults.
pub(crate) fn java_recorder() -> Result<PathBuf> {
    let jars = kafka_jars()?;
    let source = workspace::root().join("interop/java/Recorder.java");
    let classes = workspace::interop_target().join("recorder/classes");
    once_per(&[&source], &classes, || compile(&jars, &classes, &source))?;
    Ok(classes)
}

fn compile(jars: &Path, classes: &Path, source: &Path) -> Result<()> {
    let mut command = Command::new("javac");
    command.args(["-nowarn", "-cp"]).arg(jars.join("*")).arg("-d").arg(classes).arg(source);
    run_ok(command, b"", FETCH_LIMIT)
        .with_context(|| format!("cannot compile {}", source.display()))
        .map(drop)
}

/// A Python that has what `interop/python/{requirements}.txt` lists.
pub(crate) fn python(requirements: &str) -> Result<PathBuf> {
    let directory = workspace::root().join("interop/python");
    let list = directory.join(requirements).with_extension("txt");
    let venv = workspace::interop_target().join(format!("venv-{requirements}"));
    let python = venv.join("bin/python");
    once_per(&[&list], &venv, || {
        let mut command = Command::new("python3");
        command.args(["-m", "venv", "--clear"]).arg(&venv);
        run_ok(command, b"", FETCH_LIMIT).context("cannot make a Python environment")?;
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        command.arg("--requirement").arg(&list);
        run_ok(command, b"", FETCH_LIMIT).context("cannot install the Python clients").map(drop)
    })?;
    Ok(python)
}

/// A librdkafka adapter: builds librdkafka from source, so it lives outside the workspace.
pub(crate) fn rust_adapter(package: &str) -> Result<PathBuf> {
    let target = workspace::interop_target().join(package);
    let manifest = workspace::root().join("interop").join(package).join("Cargo.toml");
    let mut command = workspace::cargo();
    command
        .args(["build", "--quiet", "--locked", "--release", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target)
        // Flags meant for the product must not rebuild a C library.
        .env_remove("RUSTFLAGS");
    run_ok(command, b"", RUST_BUILD_LIMIT).context("cannot build the rdkafka adapter")?;
    Ok(target.join("release/rdkafka-adapter"))
}

/// The Go adapter, with the versions that `interop/go/{module}` names.
pub(crate) fn go_adapter(module: &str) -> Result<PathBuf> {
    go_program(module, ".", "go")
}

/// franz-go as a recorder, for clusters under faults.
pub(crate) fn go_recorder() -> Result<PathBuf> {
    go_program("go.mod", "./recorder", "recorder")
}

fn go_program(module: &str, package: &str, place: &str) -> Result<PathBuf> {
    let binary = workspace::interop_target().join(place).join(module).with_extension("bin");
    let mut command = Command::new("go");
    command
        .current_dir(workspace::root().join("interop/go"))
        .args(["build", "-modfile", module, "-o"])
        .arg(&binary)
        .arg(package);
    run_ok(command, b"", FETCH_LIMIT).context("cannot build the Go clients")?;
    Ok(binary)
}

/// The Node adapter, beside the packages that it needs.
pub(crate) fn node_adapter() -> Result<PathBuf> {
    let source = workspace::root().join("interop/node");
    let directory = workspace::interop_target().join("node");
    let files = ["package.json", "package-lock.json", "adapter.js"];
    let sources = files.map(|file| source.join(file));
    once_per(&sources, &directory, || {
        for file in files {
            fs::copy(source.join(file), directory.join(file))
                .with_context(|| format!("cannot copy {file}"))?;
        }
        let mut command = Command::new("npm");
        command.current_dir(&directory).args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        run_ok(command, b"", FETCH_LIMIT).context("cannot install the Node clients").map(drop)
    })?;
    Ok(directory.join("adapter.js"))
}

/// Runs `make` unless it succeeded before for the same texts of `descriptions`.
pub(crate) fn once_per(
    descriptions: &[impl AsRef<Path>],
    made: &Path,
    make: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut wanted = String::new();
    for description in descriptions.iter().map(AsRef::as_ref) {
        let text = fs::read_to_string(description);
        wanted += &text.with_context(|| format!("cannot read {}", description.display()))?;
    }
    let stamp = made.with_extension("made-from");
    if made.exists() && fs::read_to_string(&stamp).is_ok_and(|last| last == wanted) {
        return Ok(());
    }
    fs::remove_dir_all(made).ok();
    fs::create_dir_all(made).with_context(|| format!("cannot create {}", made.display()))?;
    make()?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
