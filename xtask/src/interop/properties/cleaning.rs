//! What is kept, what is deleted, and what is compacted (shell).

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

use super::topic::Topic;
use super::{Bench, Case};

pub(super) const CASES: &[Case] = &[
    Case { property: "retention.ms", shows: retention_ms },
    Case { property: "retention.bytes", shows: retention_bytes },
    Case { property: "cleanup.policy", shows: cleanup_policy },
    Case { property: "min.cleanable.dirty.ratio", shows: min_cleanable_dirty_ratio },
    Case { property: "min.compaction.lag.ms", shows: min_compaction_lag_ms },
    Case { property: "max.compaction.lag.ms", shows: max_compaction_lag_ms },
    Case { property: "delete.retention.ms", shows: delete_retention_ms },
];

const COMPACTED: (&str, &str) = ("cleanup.policy", "compact");
const DIRTY: (&str, &str) = ("min.cleanable.dirty.ratio", "0");

/// A topic of one test beside the one that it is about.
fn witness<'a>(bench: &'a Bench, of: &str, configs: &[(&str, &str)]) -> Result<Topic<'a>> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Topic::create(bench, &format!("witness-{number}-of-{of}"), configs)
}

/// Waits until retention has looked at a topic that was made just now.
pub(super) fn retention_has_run(bench: &Bench, of: &str) -> Result<()> {
    let witness = witness(bench, of, &[("retention.ms", "1000")])?;
    witness.write(b"v")?;
    witness.until("retention does not run", || Ok(witness.start()? > 0))
}

/// Waits until a topic that was made just now is compacted.
fn compaction_has_run(bench: &Bench, of: &str) -> Result<()> {
    let witness = witness(bench, of, &[COMPACTED, DIRTY])?;
    write_twice(&witness)?;
    is_compacted(&witness, 0)
}

/// A key twice in a segment that is closed. Gives the offset of the older one.
fn write_twice(topic: &Topic<'_>) -> Result<i64> {
    let older = topic.write_keyed("k", Some(b"older"))?;
    topic.write_keyed("k", Some(b"newer"))?;
    topic.roll()?;
    Ok(older)
}

fn is_compacted(topic: &Topic<'_>, older: i64) -> Result<()> {
    topic.until("is not compacted", || Ok(!topic.holds(older)?))?;
    ensure!(topic.holds(older + 1)?, "the newest record of a key is gone");
    Ok(())
}

fn retention_ms(bench: &Bench) -> Result<()> {
    const NAME: &str = "retention.ms";
    let topic = Topic::create(bench, NAME, &[])?;
    topic.write(b"old")?;
    topic.roll()?;
    retention_has_run(bench, NAME)?;
    ensure!(topic.start()? == 0, "before the change it is deleted");
    topic.set(NAME, "60000")?;
    topic.until("what is older stays", || Ok(topic.start()? == 2))?;
    topic.set(NAME, "-1")?;
    // One that is deleted had not been told of the change.
    topic.until("what is older still goes", || {
        let offset = topic.write(b"old, too")?;
        topic.roll()?;
        retention_has_run(bench, NAME)?;
        topic.holds(offset)
    })
}

fn retention_bytes(bench: &Bench) -> Result<()> {
    const NAME: &str = "retention.bytes";
    let topic = Topic::create(bench, NAME, &[])?;
    for _ in 0..3 {
        topic.write(&[b'x'; 10_000])?;
        topic.roll()?;
    }
    retention_has_run(bench, NAME)?;
    ensure!(topic.start()? == 0, "before the change it is deleted");
    // Three segments of ten thousand bytes and a little, and one with a little; the last ones have at least so much.
    for (value, start) in [("25000", 0), ("20300", 1), ("10200", 3)] {
        topic.set(NAME, value)?;
        topic.until(&format!("{value} keeps too much"), || Ok(topic.start()? >= start))?;
        retention_has_run(bench, NAME)?;
        ensure!(topic.start()? == start, "{value} keeps too little: from {} on", topic.start()?);
    }
    Ok(())
}

/// Every policy and each of its two effects, in one topic.
fn cleanup_policy(bench: &Bench) -> Result<()> {
    const NAME: &str = "cleanup.policy";
    let configs = [(NAME, ""), ("retention.ms", "60000"), DIRTY];
    let topic = Topic::create(bench, NAME, &configs)?;
    let older = write_twice(&topic)?;
    let neither = |topic: &Topic<'_>, older: i64| -> Result<bool> {
        retention_has_run(bench, NAME)?;
        compaction_has_run(bench, NAME)?;
        Ok(topic.start()? <= older && topic.holds(older)?)
    };
    ensure!(neither(&topic, older)?, "an empty policy keeps not everything");
    topic.set(NAME, "compact")?;
    is_compacted(&topic, older)?;
    retention_has_run(bench, NAME)?;
    ensure!(topic.start()? == 0, "compact deletes what is old");
    topic.set(NAME, "delete")?;
    topic.until("delete keeps what is old", || Ok(topic.start()? == 3))?;
    topic.set(NAME, "")?;
    topic.until("an empty policy keeps not everything", || {
        let older = write_twice(&topic)?;
        neither(&topic, older)
    })?;
    // Both: what is not old is compacted, and what is old goes.
    topic.set("retention.ms", "-1")?;
    topic.set(NAME, "compact,delete")?;
    let older = write_twice(&topic)?;
    is_compacted(&topic, older)?;
    topic.set("retention.ms", "60000")?;
    topic.until("both keep what is old", || Ok(topic.start()? > older))
}

fn min_cleanable_dirty_ratio(bench: &Bench) -> Result<()> {
    const NAME: &str = "min.cleanable.dirty.ratio";
    stays_until(bench, NAME, &[(NAME, "1")], "0")
}

fn min_compaction_lag_ms(bench: &Bench) -> Result<()> {
    const NAME: &str = "min.compaction.lag.ms";
    // A year; the records are a month old.
    stays_until(bench, NAME, &[DIRTY, (NAME, "31536000000")], "0")
}

fn max_compaction_lag_ms(bench: &Bench) -> Result<()> {
    const NAME: &str = "max.compaction.lag.ms";
    stays_until(bench, NAME, &[("min.cleanable.dirty.ratio", "1")], "60000")
}

/// A topic that is not compacted before a property has this value.
fn stays_until(bench: &Bench, property: &str, configs: &[(&str, &str)], value: &str) -> Result<()> {
    let topic = Topic::create(bench, property, &[&[COMPACTED], configs].concat())?;
    let older = write_twice(&topic)?;
    compaction_has_run(bench, property)?;
    ensure!(topic.holds(older)?, "before the change it is compacted");
    topic.set(property, value)?;
    is_compacted(&topic, older)
}

/// The first compaction that meets a mark writes down until when it stays: the change is for those that come later.
fn delete_retention_ms(bench: &Bench) -> Result<()> {
    const NAME: &str = "delete.retention.ms";
    let topic = Topic::create(bench, NAME, &[COMPACTED, DIRTY, (NAME, "3600000")])?;
    // Deletes a key; gives the mark's offset once it has been met.
    let deleted = |key: &str| -> Result<i64> {
        let value = topic.write_keyed(key, Some(b"v"))?;
        let mark = topic.write_keyed(key, None)?;
        topic.roll()?;
        topic.until("a deleted key's value stays", || Ok(!topic.holds(value)?))?;
        Ok(mark)
    };
    let compacted_again = || {
        let older = write_twice(&topic)?;
        is_compacted(&topic, older)
    };
    let kept = deleted("kept")?;
    compacted_again()?;
    ensure!(topic.holds(kept)?, "before the change a mark goes at once");
    topic.set(NAME, "0")?;
    topic.until("no mark goes", || {
        let gone = deleted("gone")?;
        compacted_again()?;
        Ok(!topic.holds(gone)?)
    })?;
    ensure!(topic.holds(kept)?, "a mark goes before its time");
    Ok(())
}
