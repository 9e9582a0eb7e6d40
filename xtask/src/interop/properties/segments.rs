//! Where segments end, and what their files look like (shell).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::session::eventually;
use super::topic::{SEGMENT_MS, Topic};
use super::{Bench, Case};

pub(super) const CASES: &[Case] = &[
    Case { property: "segment.bytes", shows: segment_bytes },
    Case { property: "internal.segment.bytes", shows: internal_segment_bytes },
    Case { property: "segment.ms", shows: segment_ms },
    Case { property: "segment.jitter.ms", shows: segment_jitter_ms },
    Case { property: "segment.index.bytes", shows: segment_index_bytes },
    Case { property: "index.interval.bytes", shows: index_interval_bytes },
    Case { property: "preallocate", shows: preallocate },
    Case { property: "file.delete.delay.ms", shows: file_delete_delay_ms },
];

/// A file that is to be removed without delay is gone by then.
const SOON: Duration = Duration::from_secs(3);

/// Records of which two are in one segment before the change, and no two after it.
fn ends_at(bench: &Bench, property: &str, value: &str, record_bytes: usize) -> Result<()> {
    let topic = Topic::create(bench, property, &[])?;
    let record = vec![b'x'; record_bytes];
    topic.write(&record)?;
    topic.write(&record)?;
    ensure!(topic.segments()? == 1, "before the change there are {} segments", topic.segments()?);
    topic.set(property, value)?;
    topic.until("no segment ends there", || {
        let before = topic.segments()?;
        topic.write(&record)?;
        topic.write(&record)?;
        Ok(topic.segments()? == before + 2)
    })
}

fn segment_bytes(bench: &Bench) -> Result<()> {
    ends_at(bench, "segment.bytes", "1048576", 600_000)
}

fn internal_segment_bytes(bench: &Bench) -> Result<()> {
    ends_at(bench, "internal.segment.bytes", "1000", 600)
}

fn segment_ms(bench: &Bench) -> Result<()> {
    let topic = Topic::create(bench, "segment.ms", &[])?;
    let two_minutes_later = || topic.write_after(120_000, None, Some(b"v"));
    two_minutes_later()?;
    two_minutes_later()?;
    ensure!(topic.segments()? == 1, "before the change there are {} segments", topic.segments()?);
    topic.set("segment.ms", "60000")?;
    topic.until("no segment ends after a minute", || {
        two_minutes_later()?;
        Ok(topic.segments()? > 1)
    })?;
    // And back.
    topic.set("segment.ms", "3600000")?;
    topic.until("each segment still ends after a minute", || {
        let before = topic.segments()?;
        two_minutes_later()?;
        Ok(topic.segments()? == before)
    })
}

/// Each segment draws its own when it begins: nine of ten end before nine tenths of their time have passed.
fn segment_jitter_ms(bench: &Bench) -> Result<()> {
    let topic = Topic::create(bench, "segment.jitter.ms", &[])?;
    let ends_early = || -> Result<bool> {
        topic.roll()?;
        let before = topic.segments()?;
        topic.write_after(SEGMENT_MS / 10 * 9, None, Some(b"v"))?;
        Ok(topic.segments()? > before)
    };
    for _ in 0..5 {
        ensure!(!ends_early()?, "before the change a segment ends early");
    }
    topic.set("segment.jitter.ms", &SEGMENT_MS.to_string())?;
    topic.until("no segment ends early", ends_early)
}

/// Apache Kafka asks when a segment begins.
fn segment_index_bytes(bench: &Bench) -> Result<()> {
    let topic = Topic::create(bench, "segment.index.bytes", &[("index.interval.bytes", "0")])?;
    let ends = || -> Result<bool> {
        topic.roll()?;
        let before = topic.segments()?;
        for _ in 0..6 {
            topic.write(b"v")?;
        }
        Ok(topic.segments()? > before)
    };
    ensure!(!ends()?, "before the change six index entries are too many");
    topic.set("segment.index.bytes", "36")?;
    topic.until("no index is too large", ends)
}

/// How many entries the index of a closed segment with twenty batches of a hundred bytes has.
fn index_interval_bytes(bench: &Bench) -> Result<()> {
    let topic = Topic::create(bench, "index.interval.bytes", &[])?;
    let entries = || -> Result<u64> {
        let begins = topic.roll()?;
        for _ in 0..20 {
            topic.write(&[b'x'; 30])?;
        }
        topic.roll()?;
        let name = format!("{begins:020}.index");
        let files = topic.files(&name)?;
        Ok(fs::metadata(files.first().context("the segment has no index")?)?.len() / 8)
    };
    let before = entries()?;
    ensure!(before == 0, "before the change two thousand bytes have {before} entries");
    topic.set("index.interval.bytes", "0")?;
    topic.until("not each batch has an entry", || Ok(entries()? >= 19))
}

/// The room that a file takes: Apache Kafka makes it long, and Ottla gives it blocks.
fn room(file: &Path) -> Result<u64> {
    let metadata = fs::metadata(file)?;
    Ok(metadata.len().max(metadata.blocks() * 512))
}

fn preallocate(bench: &Bench) -> Result<()> {
    const SEGMENT_BYTES: u64 = 4 << 20;
    let segment_bytes = SEGMENT_BYTES.to_string();
    let topic = Topic::create(bench, "preallocate", &[("segment.bytes", &segment_bytes)])?;
    let of_new_segment = || -> Result<u64> {
        topic.roll()?;
        room(topic.files(".log")?.last().context("there is no segment")?)
    };
    let before = of_new_segment()?;
    ensure!(before < SEGMENT_BYTES / 4, "before the change a segment begins with {before} bytes");
    topic.set("preallocate", "true")?;
    topic.until("no segment has its room from the start", || {
        Ok(of_new_segment()? >= SEGMENT_BYTES)
    })?;
    topic.roll()?;
    let files = topic.files(".log")?;
    let closed = files.iter().rev().nth(1).context("there is no closed segment")?;
    ensure!(room(closed)? < SEGMENT_BYTES / 4, "a closed segment keeps the room");
    topic.set("preallocate", "false")?;
    topic.until("segments still have their room from the start", || {
        Ok(of_new_segment()? < SEGMENT_BYTES / 4)
    })
}

/// A segment that was deleted before the change, an hour from its removal, and one after it, which is gone.
fn file_delete_delay_ms(bench: &Bench) -> Result<()> {
    let topic =
        Topic::create(bench, "file.delete.delay.ms", &[("file.delete.delay.ms", "3600000")])?;
    let delete_all = || -> Result<String> {
        let before = topic.files(".log")?;
        let last = before.last().and_then(|path| path.file_name()).context("no segment")?;
        let last = format!("{}.deleted", last.to_string_lossy());
        topic.delete_before(topic.roll()?)?;
        topic.until("no segment is deleted", || Ok(topic.segments()? == 1))?;
        Ok(last)
    };
    topic.write(b"v")?;
    let waits = delete_all()?;
    topic.until("nothing waits for its removal", || Ok(!topic.files(&waits)?.is_empty()))?;
    topic.set("file.delete.delay.ms", "0")?;
    topic.until("what is deleted is not removed soon", || {
        let removed = delete_all()?;
        let gone = || Ok(topic.files(&removed)?.is_empty().then_some(()));
        Ok(eventually(SOON, gone).is_ok())
    })
}
