//! How long a quorum of one takes to start after 100,000 changes to few topics, with the whole log and with snapshots, and
//! how much memory it takes: `cargo run --release -p ottla-quorum --example start_time`.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example")]
#![allow(unreachable_pub, dead_code, reason = "the fixture of the tests")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use common::{Node, try_start_snapshotting};
use ottla_metadata::{ConfigResource, Outcome};
use ottla_protocol::records::ConfigRecord;
use ottla_quorum::SnapshotLimits;

const CHANGES: usize = 100_000;
const TOPICS: usize = 10;
const AT_ONCE: usize = 500;
const SEGMENT_BYTES: u64 = 1 << 30;

async fn change(node: Arc<Node>, number: usize) {
    let record = ConfigRecord {
        resource_type: ConfigResource::TOPIC,
        resource_name: format!("topic-{}", number % TOPICS).into(),
        name: "retention.ms".into(),
        value: Some(number.to_string().into()),
    };
    let decision = node.quorum.decide(move |_| Outcome { records: vec![record.into()], reply: () });
    decision.await.unwrap();
}

async fn prepare(path: &Path, limits: SnapshotLimits) {
    let node = try_start_snapshotting(path, SEGMENT_BYTES, limits).await.unwrap();
    let node = Arc::new(node);
    for from in (0..CHANGES).step_by(AT_ONCE) {
        let tasks: Vec<_> = (from..from + AT_ONCE)
            .map(|number| tokio::spawn(change(Arc::clone(&node), number)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    Arc::into_inner(node).unwrap().stop().await;
}

/// Of this process, in KiB; Linux only.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or("unknown").trim().to_owned()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let rarely = SnapshotLimits { bytes_between: u64::MAX, interval_ms: 0, ..Default::default() };
    let often = SnapshotLimits { bytes_between: 2 << 20, ..rarely };
    if let [_, path] = &*std::env::args().collect::<Vec<_>>() {
        let before = resident();
        let begin = Instant::now();
        let node = try_start_snapshotting(Path::new(path), SEGMENT_BYTES, rarely).await.unwrap();
        println!("started in {:?}, resident {before} -> {}", begin.elapsed(), resident());
        assert_eq!(node.quorum.image().config_resources().count(), TOPICS);
        node.stop().await;
        return;
    }
    for (what, limits) in [("the whole log", rarely), ("snapshots every 2 MiB", often)] {
        let path = tempfile::tempdir().unwrap();
        prepare(path.path(), limits).await;
        println!("{what}:");
        for _ in 0..3 {
            let program = std::env::current_exe().unwrap();
            std::process::Command::new(program).arg(path.path()).status().unwrap();
        }
    }
}
