//! What is set, where it was set, and which of several sources counts (pure).
//!
//! The command line beats the environment, the environment beats the file, the file beats the
//! default. Nothing is lost on the way: every value remembers the line, variable or option that
//! it came from, and names that nobody knows stay as they are for DescribeConfigs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::check::{Check, Objection};
use crate::environment;
use crate::properties::{self, MalformedEscape};
use crate::property::{Kind, Property, Scope};
use crate::table::{find, nearest};
use crate::value::{Value, java_trim};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// What a node that is started without a configuration file is given.
    BuiltIn,
    File {
        path: Arc<str>,
        line: usize,
    },
    Environment {
        variable: String,
    },
    /// A data directory that was formatted earlier.
    Directory {
        path: Arc<str>,
    },
    /// The option, such as `--set`.
    CommandLine {
        option: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::File { path, line } => write!(f, "{path} line {line}"),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Directory { path } => write!(f, "data directory {path}"),
            Self::CommandLine { option } => write!(f, "command line {option}"),
        }
    }
}

/// One value that somebody set.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub value: Value,
    /// As it was written.
    pub text: String,
    pub origin: Origin,
}

/// A name that is no property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub text: String,
    pub origin: Origin,
}

/// Everything that is set on a broker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub(crate) known: BTreeMap<&'static str, Setting>,
    pub(crate) unknown: BTreeMap<String, Unknown>,
}

/// A value that its property does not allow, or a name that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `None` when it is about something that nobody set.
    pub origin: Option<Origin>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Problem {}

impl Settings {
    /// The value that counts: what is set, else the default; `None` where Kafka has null.
    pub fn value(&self, name: &str) -> Option<Value> {
        if let Some(setting) = self.known.get(name) {
            return Some(setting.value.clone());
        }
        let property = find(Scope::Broker, name)?;
        Value::parse(property.kind, property.default?).ok()
    }

    /// What was set for a property, if anything was.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.known.get(name)
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// Whether a person set it: what a node without a file is given is nobody's choice.
    pub fn is_chosen(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|setting| setting.origin != Origin::BuiltIn)
    }

    /// Where the value comes from, for messages about several properties.
    pub(crate) fn origin(&self, name: &str) -> Option<Origin> {
        self.known.get(name).map(|setting| setting.origin.clone())
    }

    /// Everything that is set, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.known.iter().map(|(name, setting)| (*name, setting))
    }

    /// Everything that is set under a name that is no property.
    pub fn unknown(&self) -> impl Iterator<Item = (&str, &Unknown)> {
        self.unknown.iter().map(|(name, unknown)| (name.as_str(), unknown))
    }

    /// Sets a property, replacing a weaker source's value.
    pub(crate) fn set(&mut self, name: &str, text: &str, origin: Origin) -> Result<(), Problem> {
        let Some(property) = find(Scope::Broker, name) else {
            let unknown = Unknown { text: text.to_owned(), origin };
            self.unknown.insert(name.to_owned(), unknown);
            return Ok(());
        };
        match read(property, text) {
            Ok(value) => {
                let setting = Setting { value, text: text.to_owned(), origin };
                self.known.insert(property.name, setting);
                Ok(())
            }
            Err(objection) => Err(Problem {
                message: not_allowed(property, text, objection),
                origin: Some(origin),
            }),
        }
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.known.remove(name);
    }

    /// Whether a BOOLEAN is on.
    pub fn boolean(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Boolean(true)))
    }

    /// The value of an INT that has a default.
    pub fn int(&self, name: &str) -> i32 {
        match self.value(name) {
            Some(Value::Int(n)) => n,
            other => unreachable!("{name} is an INT with a default, not {other:?}"),
        }
    }

    /// The value of a SHORT that has a default.
    pub fn short(&self, name: &str) -> i16 {
        match self.value(name) {
            Some(Value::Short(n)) => n,
            other => unreachable!("{name} is a SHORT with a default, not {other:?}"),
        }
    }

    /// The value of a LONG that has a default.
    pub fn long(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(Value::Long(n)) => n,
            other => unreachable!("{name} is a LONG with a default, not {other:?}"),
        }
    }

    pub(crate) fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Double(n)) => n,
            other => unreachable!("{name} is a DOUBLE with a default, not {other:?}"),
        }
    }

    /// `None` where Kafka has null or an empty text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::String(s)) if !s.is_empty() => Some(s),
            _ => None,
        }
    }

    /// Null is an empty list.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }
}

/// Reads and checks a value as Kafka does: entries of a checked list count once.
pub(crate) fn read(property: &Property, text: &str) -> Result<Value, Objection> {
    let mut value = Value::parse(property.kind, text).map_err(|reason| {
        // Kafka shows the text as it was written, not trimmed.
        Objection::Sentence(format!(
            "Invalid value {} for configuration {}: {reason}",
            shown(property, text),
            property.name
        ))
    })?;
    if let (Value::List(items), Check::List { .. } | Check::ListOf { .. }) =
        (&mut value, &property.check)
    {
        let mut seen = std::collections::BTreeSet::new();
        items.retain(|item| seen.insert(item.clone()));
    }
    match property.check.apply(property.name, Some(&value)) {
        Ok(()) => Ok(value),
        Err(Objection::Value(reason)) => Err(Objection::Sentence(format!(
            "Invalid value {} for configuration {}: {reason}",
            java_shown(property, &value),
            property.name
        ))),
        Err(sentence) => Err(sentence),
    }
}

/// What Kafka makes of a value, or says against it.
///
/// # Errors
/// Kafka's sentence about the value.
pub fn judge(property: &Property, text: &str) -> Result<Value, String> {
    read(property, text).map_err(|objection| objection_message(property, objection))
}

/// Kafka's sentence about a value.
pub(crate) fn objection_message(property: &Property, objection: Objection) -> String {
    match objection {
        Objection::Sentence(sentence) => sentence,
        Objection::Value(reason) => {
            format!("Invalid value for configuration {}: {reason}", property.name)
        }
    }
}

fn shown<'a>(property: &Property, text: &'a str) -> &'a str {
    if property.is_sensitive() { "[hidden]" } else { text }
}

/// A value inside one of Kafka's sentences: Java writes lists with brackets.
fn java_shown(property: &Property, value: &Value) -> String {
    let text = match value.items() {
        Some(items) => format!("[{}]", items.join(", ")),
        None => value.to_string(),
    };
    shown(property, &text).to_owned()
}

/// Our own sentence for people at a terminal: property, value, and what is allowed.
fn not_allowed(property: &Property, text: &str, objection: Objection) -> String {
    let name = property.name;
    let text = shown(property, java_trim(text));
    let reason = match objection {
        Objection::Sentence(sentence) | Objection::Value(sentence) => sentence,
    };
    // Kafka's sentence begins with what ours has said already.
    let reason = reason
        .rsplit_once(&format!("for configuration {name}: "))
        .map_or(reason.as_str(), |(_, reason)| reason);
    let reason = reason.trim_end_matches('.');
    format!("{name}={text} is not allowed: {reason}; allowed: {}", allowed(property))
}

/// What a property's value may be, for people.
pub(crate) fn allowed(property: &Property) -> String {
    let check = property.check.describe();
    match (property.kind, &property.check) {
        (Kind::Int, Check::AtLeast(minimum)) => format!("{minimum} to {}", i32::MAX),
        (Kind::Short, Check::AtLeast(minimum)) => format!("{minimum} to {}", i16::MAX),
        (Kind::Int, Check::Any) => format!("a whole number up to {}", i32::MAX),
        (Kind::Short, Check::Any) => format!("a whole number up to {}", i16::MAX),
        (Kind::Long, Check::Any) => "a whole number".to_owned(),
        (Kind::Long, _) => format!("a whole number, {check}"),
        (Kind::Double, Check::Any) => "a number".to_owned(),
        (Kind::Boolean, _) => "true or false".to_owned(),
        (Kind::Class, _) => "the name of a Java class".to_owned(),
        (Kind::List, Check::Any) => "values separated by commas".to_owned(),
        (Kind::String | Kind::Password, Check::Any) => "text".to_owned(),
        (
            Kind::Int | Kind::Short | Kind::Double | Kind::List | Kind::String | Kind::Password,
            _,
        ) => check,
    }
}

/// Where settings come from. The caller reads the file and the environment.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file's path, for messages, and its whole text.
    pub file: Option<(String, String)>,
    /// All environment variables; foreign ones are passed over.
    pub environment: Vec<(String, String)>,
    /// `key=value` of every `--set`, in order.
    pub set: Vec<String>,
    /// `--listen HOST:PORT`: where clients connect, in place of the first listener.
    pub listen: Option<String>,
    /// `--data-dir DIR`, or the temporary directory of `--ephemeral`.
    pub data_dir: Option<String>,
    /// `--join HOST:PORT`, in order, each perhaps of several addresses with commas: where the cluster is that this node
    /// joins.
    pub join: Vec<String>,
    /// What the data directories say, where they are formatted.
    pub formatted: Option<Formatted>,
    /// `--strict-config`: a name that is no property is an error.
    pub strict: bool,
}

/// What formatted data directories say about the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formatted {
    /// The directory, for messages.
    pub path: String,
    pub node_id: i32,
    /// `HOST:PORT` of controllers of the cluster, if the node has joined one with `--join`.
    pub joined: Option<Vec<String>>,
}

/// What a node gets that is started without a configuration file, as a person does who tries it.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("node.id", "1"),
    ("process.roles", "broker,controller"),
    ("listeners", "PLAINTEXT://127.0.0.1:9092"),
    ("log.dirs", "./ottla-data"),
];

/// What it gets beside [`BUILT_IN`] as long as its properties name no other controller: one node
/// cannot hold three replicas, and nobody wants to wait when trying something out.
pub const BUILT_IN_FOR_ONE: &[(&str, &str)] = &[
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
];

/// One `name = text` and where it stands.
type Assignment = (String, String, Origin);

impl Sources {
    /// All sources, the weakest first. Every problem is collected, not only the first.
    pub(crate) fn gather(&self, problems: &mut Vec<Problem>) -> Settings {
        let mut settings = Settings::default();
        let layers = [
            self.built_in_layer(),
            self.file_layer(problems),
            self.environment_layer(),
            self.set_layer(problems),
        ];
        for (name, text, origin) in last_of_each(layers.concat()) {
            settings.set(&name, &text, origin).unwrap_or_else(|problem| problems.push(problem));
        }
        settings
    }

    fn built_in_layer(&self) -> Vec<Assignment> {
        let assignment =
            |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned(), Origin::BuiltIn);
        if self.file.is_some() {
            return Vec::new();
        }
        // Who joins gets the id that the cluster gives it.
        let is_meant = |(name, _): &&(&str, &str)| self.join.is_empty() || *name != "node.id";
        BUILT_IN.iter().filter(is_meant).chain(BUILT_IN_FOR_ONE).map(assignment).collect()
    }

    /// Whether this node is one of a cluster that it has joined, or is about to join.
    pub(crate) fn joins(&self) -> bool {
        let has_joined = |formatted: &Formatted| formatted.joined.is_some();
        !self.join.is_empty() || self.formatted.as_ref().is_some_and(has_joined)
    }

    fn file_layer(&self, problems: &mut Vec<Problem>) -> Vec<Assignment> {
        let Some((path, text)) = &self.file else { return Vec::new() };
        let path: Arc<str> = path.as_str().into();
        match properties::parse(text) {
            Ok(entries) => entries
                .into_iter()
                .map(|entry| {
                    let origin = Origin::File { path: Arc::clone(&path), line: entry.line };
                    (entry.key, entry.value, origin)
                })
                .collect(),
            Err(MalformedEscape { line }) => {
                let message = "\\u must be followed by four hexadecimal digits".to_owned();
                problems.push(Problem { origin: Some(Origin::File { path, line }), message });
                Vec::new()
            }
        }
    }

    fn environment_layer(&self) -> Vec<Assignment> {
        let mut assignments: Vec<Assignment> = self
            .environment
            .iter()
            .filter_map(|(variable, text)| {
                let name = environment::property_name(variable)?;
                let origin = Origin::Environment { variable: variable.clone() };
                Some((name, environment::property_value(text), origin))
            })
            .collect();
        // The system gives variables in no order: let messages have one.
        assignments.sort_by(|a, b| a.0.cmp(&b.0));
        assignments
    }

    fn set_layer(&self, problems: &mut Vec<Problem>) -> Vec<Assignment> {
        let mut assignments = Vec::new();
        for pair in &self.set {
            let origin = Origin::CommandLine { option: "--set" };
            match pair.split_once('=') {
                Some((name, text)) => {
                    assignments.push((java_trim(name).to_owned(), text.to_owned(), origin));
                }
                None => problems.push(Problem {
                    message: format!("{pair} is not of the form key=value"),
                    origin: Some(origin),
                }),
            }
        }
        assignments
    }
}

/// The last assignment of a name counts, and only that one is checked.
fn last_of_each(all: Vec<Assignment>) -> Vec<Assignment> {
    let mut last = BTreeMap::new();
    for (at, (name, ..)) in all.iter().enumerate() {
        last.insert(name.clone(), at);
    }
    let keep = |(at, assignment): (usize, Assignment)| {
        (last.get(&assignment.0) == Some(&at)).then_some(assignment)
    };
    all.into_iter().enumerate().filter_map(keep).collect()
}

/// The sentence about a name that is no property.
pub(crate) fn unknown_message(name: &str) -> String {
    match nearest(Scope::Broker, name) {
        Some(meant) => format!("{name} is no property of Kafka or Ottla: did you mean {meant}?"),
        None => format!("{name} is no property of Kafka or Ottla, and is ignored"),
    }
}
