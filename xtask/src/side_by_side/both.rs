//! Both brokers at once: every step goes to Apache Kafka and to Ottla, and what they answer is compared (shell).

use anyhow::{Context, Result};
use ottla_protocol::{ApiKey, Request};

use super::connection::{Connection, Reply};
use super::known::KnownDifferences;
use super::subject::{Outcome, Subject, Via};
use super::value::{Difference, Value, differences};

/// What Apache Kafka answered, and what Ottla answered.
pub(super) type Pair<T> = [Option<T>; 2];

#[derive(Debug)]
pub(super) struct Both {
    kafka: Subject,
    ottla: Subject,
    known: KnownDifferences,
    pub(super) report: Report,
}

/// What was compared, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) steps: usize,
    pub(super) fields: usize,
    pub(super) known: usize,
    /// Steps with a difference that nobody knows of.
    pub(super) failed: Vec<String>,
}

impl Both {
    pub(super) fn new(kafka: Subject, ottla: Subject, known: KnownDifferences) -> Self {
        Self { kafka, ottla, known, report: Report::default() }
    }

    pub(super) fn unused_known_differences(&self) -> Vec<String> {
        self.known.unused().collect()
    }

    /// Sends both the request that `make` makes for each, and compares the answers.
    pub(super) fn ask<R: Request>(
        &mut self,
        version: i16,
        what: &str,
        make: impl Fn(&Subject) -> R,
    ) -> Result<Pair<R::Response>> {
        self.ask_edited(version, what, |subject, _| make(subject), |_| ())
    }

    /// Like [`Both::ask`]; `make` is told which of a pair is the subject's, 0 or 1.
    pub(super) fn ask_each<R: Request>(
        &mut self,
        version: i16,
        what: &str,
        make: impl Fn(&Subject, usize) -> R,
    ) -> Result<Pair<R::Response>> {
        self.ask_edited(version, what, make, |_| ())
    }

    /// Like [`Both::ask_each`]; `edit` leaves out of an answer what can't be compared.
    pub(super) fn ask_edited<R: Request>(
        &mut self,
        version: i16,
        what: &str,
        make: impl Fn(&Subject, usize) -> R,
        edit: impl Fn(&mut R::Response),
    ) -> Result<Pair<R::Response>> {
        let step = match self.kafka.via {
            Via::Broker => format!("{} v{version}: {what}", R::KEY),
            Via::Controller => format!("{} v{version} to the controller: {what}", R::KEY),
        };
        let ask = |subject: &mut Subject, index: usize, name: &str| {
            let request = make(subject, index);
            let mut outcome = subject
                .ask(version, &request)
                .with_context(|| format!("{step}: {name}: {request:?}"))?;
            if let Outcome::Answered(answer) = &mut outcome {
                edit(answer);
            }
            Ok::<_, anyhow::Error>(outcome)
        };
        let kafka = ask(&mut self.kafka, 0, "Apache Kafka")?;
        let ottla = ask(&mut self.ottla, 1, "Ottla")?;
        let left = shown::<R>(&self.kafka, &kafka);
        let right = shown::<R>(&self.ottla, &ottla);
        self.compare(&step, &left, &right);
        Ok([kafka.answer(), ottla.answer()])
    }

    /// Asks through the listeners for controllers in place of those for clients.
    pub(super) fn through_controllers(
        &mut self,
        script: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.set_via(Via::Controller);
        let outcome = script(self);
        self.set_via(Via::Broker);
        outcome
    }

    pub(super) fn is_through_controllers(&self) -> bool {
        self.kafka.via == Via::Controller
    }

    fn set_via(&mut self, via: Via) {
        self.kafka.via = via;
        self.ottla.via = via;
    }

    /// Sends both a request from somebody else, on a connection of its own, and does not wait for the answer.
    pub(super) fn send_from<R: Request>(
        &mut self,
        who: &str,
        version: i16,
        make: impl Fn(&Subject, usize) -> R,
    ) -> Result<()> {
        for (index, subject) in [&mut self.kafka, &mut self.ottla].into_iter().enumerate() {
            let request = make(subject, index);
            subject.send_from(who, version, &request)?;
        }
        Ok(())
    }

    /// Waits for the answers to what somebody else has sent, and compares them.
    pub(super) fn answer_to<R: Request>(
        &mut self,
        who: &str,
        version: i16,
        what: &str,
    ) -> Result<Pair<R::Response>> {
        let step = format!("{} v{version}: {what}", R::KEY);
        let kafka = self.kafka.answer_to::<R>(who, version).context("Apache Kafka")?;
        let ottla = self.ottla.answer_to::<R>(who, version).context("Ottla")?;
        let left = shown::<R>(&self.kafka, &kafka);
        let right = shown::<R>(&self.ottla, &ottla);
        self.compare(&step, &left, &right);
        Ok([kafka.answer(), ottla.answer()])
    }

    /// Calls a member of a group by one name, whatever each broker calls it.
    pub(super) fn name_member(&mut self, [kafka, ottla]: &[String; 2], name: &str) {
        self.kafka.name_member(kafka, name);
        self.ottla.name_member(ottla, name);
    }

    /// Does something to both that is not compared.
    pub(super) fn set_up(&mut self, act: impl FnMut(&mut Subject) -> Result<()>) -> Result<()> {
        self.each(act).map(drop)
    }

    /// The same, and what came of it on each.
    pub(super) fn each<T>(
        &mut self,
        mut act: impl FnMut(&mut Subject) -> Result<T>,
    ) -> Result<[T; 2]> {
        let kafka = act(&mut self.kafka).context("Apache Kafka")?;
        let ottla = act(&mut self.ottla).context("Ottla")?;
        Ok([kafka, ottla])
    }

    /// Makes a topic on both, and waits until it can be used.
    pub(super) fn create(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        self.set_up(|subject| subject.create(topic, partitions, configs))
    }

    /// Talks to both on a new connection each, and compares what came of it.
    pub(super) fn talk(
        &mut self,
        step: &str,
        talk: impl Fn(&Subject, &mut Connection) -> Result<Vec<Reply>>,
    ) -> Result<()> {
        let left = talk_to(&self.kafka, &talk).with_context(|| format!("{step}: Apache Kafka"))?;
        let right = talk_to(&self.ottla, &talk).with_context(|| format!("{step}: Ottla"))?;
        self.compare(step, &left, &right);
        Ok(())
    }

    /// Does something to each on its own, 0 or 1, and compares what it saw.
    pub(super) fn observe(
        &mut self,
        step: &str,
        mut look: impl FnMut(&Subject, usize) -> Result<Value>,
    ) -> Result<()> {
        let left = look(&self.kafka, 0).with_context(|| format!("{step}: Apache Kafka"))?;
        let right = look(&self.ottla, 1).with_context(|| format!("{step}: Ottla"))?;
        self.compare(step, &left, &right);
        Ok(())
    }

    /// Ottla alone, for what only it must do.
    pub(super) fn ottla(&mut self) -> &mut Subject {
        &mut self.ottla
    }

    /// Compares what a script has found out itself.
    pub(super) fn compare(&mut self, step: &str, kafka: &Value, ottla: &Value) {
        self.report.steps += 1;
        self.report.fields += kafka.leaves();
        let mut unknown = Vec::new();
        for difference in differences(kafka, ottla) {
            if self.known.covers(step, &difference) {
                self.report.known += 1;
            } else {
                unknown.push(difference);
            }
        }
        if !unknown.is_empty() {
            print_differences(step, &unknown);
            self.report.failed.push(step.to_owned());
        }
    }
}

fn talk_to(
    subject: &Subject,
    talk: impl Fn(&Subject, &mut Connection) -> Result<Vec<Reply>>,
) -> Result<Value> {
    let mut connection = subject.fresh_connection()?;
    let replies = talk(subject, &mut connection)?;
    Ok(Value::List(replies.iter().map(reply_shown).collect()))
}

fn reply_shown(reply: &Reply) -> Value {
    match reply {
        Reply::Frame(frame) => Value::leaf(format!("{frame:?}")),
        Reply::Closed => Value::leaf("closed"),
        Reply::Nothing => Value::leaf("no answer"),
    }
}

/// The APIs whose answers come in an order that clients may rely on; Apache Kafka takes the others' from hash tables.
const ORDERED: &[ApiKey] = &[ApiKey::Fetch, ApiKey::DescribeTopicPartitions];

/// The APIs whose texts are compared word for word: people see them in Kafka's own tools.
const WORDED: &[ApiKey] = &[
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::CreatePartitions,
    ApiKey::ElectLeaders,
    ApiKey::AlterPartitionReassignments,
    ApiKey::ListPartitionReassignments,
    ApiKey::DescribeClientQuotas,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::DescribeAcls,
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::SaslAuthenticate,
    ApiKey::UpdateFeatures,
    ApiKey::UnregisterBroker,
];

fn shown<R: Request>(subject: &Subject, outcome: &Outcome<R::Response>) -> Value {
    let Outcome::Answered(answer) = outcome else {
        return Value::leaf(if matches!(outcome, Outcome::Closed) {
            "closed"
        } else {
            "no answer"
        });
    };
    let mut value = subject.normalise(Value::of(answer), WORDED.contains(&R::KEY));
    if !ORDERED.contains(&R::KEY) {
        value.sort();
    }
    value
}

const SHOWN_MAX: usize = 1500;

fn print_differences(step: &str, differences: &[Difference]) {
    println!("DIFFERS {step}");
    for Difference { path, left, right } in differences {
        println!("    {path}\n        kafka: {}\n        ottla: {}", cut(left), cut(right));
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}
