//! What the figures were measured on: no names, no paths (shell).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::bench::procfs;
use crate::process::run_ok;
use crate::workspace;

const LIMIT: Duration = Duration::from_secs(30);

/// Commit, date and machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) cores: usize,
    processor: String,
    kernel: String,
    memory_mib: f64,
    /// How busy the machine was when we came.
    load_average: String,
    kafka: String,
}

impl Machine {
    pub(crate) fn describe(kafka_jars: &Path) -> Result<Self> {
        Ok(Self {
            // A source archive has no history.
            commit: commit().unwrap_or_else(|_| "unknown".to_owned()),
            date: said("date", &["-u", "+%Y-%m-%d"])?,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: processor().unwrap_or_else(|| "unknown".to_owned()),
            kernel: read("/proc/sys/kernel/osrelease")?,
            memory_mib: procfs::mebibytes("/proc/meminfo", "MemTotal:")?,
            load_average: read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned(),
            kafka: kafka_version(kafka_jars).unwrap_or_else(|| "unknown".to_owned()),
        })
    }

    /// What [`Self::json`] made.
    pub(crate) fn parse(json: &Value) -> Result<Self> {
        let field =
            |name: &str| json.get(name).with_context(|| format!("a machine without {name}"));
        let text = |name: &str| {
            let text = field(name)?.as_str().map(str::to_owned);
            text.with_context(|| format!("{name} is no text"))
        };
        let number =
            |name: &str| field(name)?.as_f64().with_context(|| format!("{name} is no number"));
        let cores = field("cores")?.as_u64().context("cores is no number")?;
        Ok(Self {
            commit: text("commit")?,
            date: text("date")?,
            cores: usize::try_from(cores)?,
            processor: text("processor")?,
            kernel: text("kernel")?,
            memory_mib: number("memory_mib")?,
            load_average: text("load_average_before")?,
            kafka: text("kafka")?,
        })
    }

    pub(crate) fn markdown(&self) -> String {
        format!(
            "Commit {}, {}. Apache Kafka {}. {} cores ({}), {:.0} MiB of memory, \
             Linux {}, load average before the run {}.",
            self.commit,
            self.date,
            self.kafka,
            self.cores,
            self.processor,
            self.memory_mib,
            self.kernel,
            self.load_average,
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "commit": self.commit,
            "date": self.date,
            "kafka": self.kafka,
            "cores": self.cores,
            "processor": self.processor,
            "kernel": self.kernel,
            "memory_mib": self.memory_mib.round(),
            "load_average_before": self.load_average,
        })
    }
}

/// The commit, marked when the sources differ from it.
fn commit() -> Result<String> {
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changed = said("git", &["status", "--porcelain", "--", "crates", "Cargo.toml"])?;
    Ok(if changed.is_empty() { commit } else { format!("{commit} with changes") })
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace::root());
    Ok(run_ok(command, b"", LIMIT)?.stdout_text().trim().to_owned())
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map(|(_, name)| name.trim().to_owned())
}

/// From the name of the clients' jar.
fn kafka_version(jars: &Path) -> Option<String> {
    fs::read_dir(jars).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some(name.strip_prefix("kafka-clients-")?.strip_suffix(".jar")?.to_owned())
    })
}
