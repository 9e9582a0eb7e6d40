//! A group member that polls in a thread of its own, and commits whatever it was given.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use serde_json::{Value, json};

use crate::{Answer, config, describe, text};

#[derive(Default)]
struct Seen {
    assignment: Vec<String>,
    consumed: Vec<Value>,
    note: Option<String>,
}

pub(crate) struct Member {
    seen: Arc<Mutex<Seen>>,
    leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The members of this process, by name.
#[derive(Default)]
pub(crate) struct Members(HashMap<String, Member>);

impl Members {
    pub(crate) fn join(&mut self, request: &Value) -> Answer {
        let mut config = config(request)?;
        config
            .set("group.id", text(request, "group")?)
            .set("session.timeout.ms", request["session"].to_string())
            .set("heartbeat.interval.ms", "300")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("reconnect.backoff.max.ms", "500")
            .set("partition.assignment.strategy", text(request, "assignor")?);
        if let Some(instance) = request["instance"].as_str() {
            config.set("group.instance.id", instance);
        }
        let consumer: BaseConsumer = config.create()?;
        consumer.subscribe(&[text(request, "topic")?])?;
        let (seen, leaving) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (its_seen, its_leaving) = (Arc::clone(&seen), Arc::clone(&leaving));
        let thread = std::thread::spawn(move || poll(&consumer, &its_seen, &its_leaving));
        let member = Member { seen, leaving, thread: Some(thread) };
        self.0.insert(text(request, "member")?.to_owned(), member);
        Ok(json!({}))
    }

    fn of(&mut self, request: &Value) -> Result<&mut Member, Box<dyn std::error::Error>> {
        let name = text(request, "member")?;
        self.0.get_mut(name).ok_or_else(|| format!("nobody is called {name}").into())
    }

    pub(crate) fn describe(&mut self, request: &Value) -> Answer {
        let seen = self.of(request)?.seen.lock().expect("no member panics");
        let count = seen.consumed.len();
        Ok(json!({ "assignment": seen.assignment, "count": count, "note": seen.note }))
    }

    pub(crate) fn consumed(&mut self, request: &Value) -> Answer {
        let seen = self.of(request)?.seen.lock().expect("no member panics");
        Ok(json!({ "records": seen.consumed }))
    }

    pub(crate) fn leave(&mut self, request: &Value) -> Answer {
        let member = self.of(request)?;
        member.leaving.store(true, Ordering::Relaxed);
        if let Some(thread) = member.thread.take() {
            thread.join().map_err(|_| "the member's thread panicked")?;
        }
        Ok(json!({}))
    }
}

fn poll(consumer: &BaseConsumer, seen: &Mutex<Seen>, leaving: &AtomicBool) {
    while !leaving.load(Ordering::Relaxed) {
        let mut records = Vec::new();
        let mut note = None;
        let mut wait = Duration::from_millis(100);
        while let Some(message) = consumer.poll(wait) {
            match message {
                Ok(message) => records.push(describe(&message)),
                Err(error) => note = Some(error.to_string()),
            }
            wait = Duration::ZERO;
        }
        // A commit may come too late for its generation, or find no broker: others follow.
        if !records.is_empty()
            && let Err(error) = consumer.commit_consumer_state(CommitMode::Sync)
        {
            note = Some(error.to_string());
        }
        let assigned = consumer.assignment().map(|partitions| {
            let name = |at: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                format!("{}-{}", at.topic(), at.partition())
            };
            partitions.elements().iter().map(name).collect()
        });
        let mut seen = seen.lock().expect("no reader panics");
        seen.consumed.append(&mut records);
        seen.assignment = assigned.unwrap_or_default();
        seen.note = note.or_else(|| seen.note.take());
    }
}
