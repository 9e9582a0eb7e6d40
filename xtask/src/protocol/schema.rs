//! Field tables of Kafka's messages: their text form under `crates/ottla-protocol/schema`, read and written.
//!
//! One file is one message. The first line names it, each further line is a field or (`struct`) a shared
//! structure; the fields of a structure are indented by two spaces below it:
//!
//! ```text
//! request FetchRequest key=1 versions=4-18 flexible=12+ listeners=broker,controller
//!   ClusterId string 12+ nullable=12+ default=null tag=0 tagged=12+ ignorable
//!   ReplicaState ReplicaState 15+ tag=1 tagged=15+
//!     ReplicaId int32 15+ default=-1
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails says so by panicking"
)]

use std::fmt;
use std::str::FromStr;

/// A closed range of versions, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) low: i16,
    pub(crate) high: i16,
}

impl Versions {
    pub(crate) const NONE: Self = Self { low: 0, high: -1 };

    pub(crate) fn is_empty(self) -> bool {
        self.low > self.high
    }

    pub(crate) fn contains(self, version: i16) -> bool {
        self.low <= version && version <= self.high
    }

    pub(crate) fn intersect(self, other: Self) -> Self {
        let both = Self { low: self.low.max(other.low), high: self.high.min(other.high) };
        if both.is_empty() { Self::NONE } else { both }
    }

    /// What is left of `self` without the versions from `from` on.
    pub(crate) fn below(self, from: Self) -> Self {
        if from.is_empty() {
            return self;
        }
        let rest = Self { low: self.low, high: self.high.min(from.low - 1) };
        if rest.is_empty() { Self::NONE } else { rest }
    }
}

impl FromStr for Versions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
        if text == "none" {
            Ok(Self::NONE)
        } else if let Some(low) = text.strip_suffix('+') {
            Ok(Self { low: number(low)?, high: i16::MAX })
        } else if let Some((low, high)) = text.split_once('-') {
            Ok(Self { low: number(low)?, high: number(high)? })
        } else {
            Ok(Self { low: number(text)?, high: number(text)? })
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.low, self.high) {
            _ if self.is_empty() => f.write_str("none"),
            (low, i16::MAX) => write!(f, "{low}+"),
            (low, high) if low == high => write!(f, "{low}"),
            (low, high) => write!(f, "{low}-{high}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    Header,
    Metadata,
    CoordinatorKey,
    CoordinatorValue,
    Data,
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::Request, "request"),
    (Kind::Response, "response"),
    (Kind::Header, "header"),
    (Kind::Metadata, "metadata"),
    (Kind::CoordinatorKey, "coordinator-key"),
    (Kind::CoordinatorValue, "coordinator-value"),
    (Kind::Data, "data"),
];

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = KINDS.iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| *kind).ok_or_else(|| format!("unknown kind of message: {text}"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, _)| kind == self).map(|(_, name)| *name);
        f.write_str(name.expect("every kind is listed"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Self>),
}

const SIMPLE_TYPES: [(Type, &str); 12] = [
    (Type::Bool, "bool"),
    (Type::Int8, "int8"),
    (Type::Int16, "int16"),
    (Type::Uint16, "uint16"),
    (Type::Int32, "int32"),
    (Type::Uint32, "uint32"),
    (Type::Int64, "int64"),
    (Type::Float64, "float64"),
    (Type::Uuid, "uuid"),
    (Type::String, "string"),
    (Type::Bytes, "bytes"),
    (Type::Records, "records"),
];

impl Type {
    /// The structure that the type, or the elements of the array, consist of.
    pub(crate) fn structure(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(element) => element.structure(),
            Self::Bool
            | Self::Int8
            | Self::Int16
            | Self::Uint16
            | Self::Int32
            | Self::Uint32
            | Self::Int64
            | Self::Float64
            | Self::Uuid
            | Self::String
            | Self::Bytes
            | Self::Records => None,
        }
    }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(element) = text.strip_prefix("[]") {
            return Ok(Self::Array(Box::new(element.parse()?)));
        }
        if let Some((simple, _)) = SIMPLE_TYPES.iter().find(|(_, name)| *name == text) {
            return Ok(simple.clone());
        }
        if text.starts_with(|first: char| first.is_ascii_uppercase()) {
            return Ok(Self::Struct(text.to_owned()));
        }
        Err(format!("unknown type: {text}"))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array(element) => write!(f, "[]{element}"),
            Self::Struct(name) => f.write_str(name),
            simple => {
                let name = SIMPLE_TYPES.iter().find(|(one, _)| one == simple).map(|(_, n)| *n);
                f.write_str(name.expect("every simple type is listed"))
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Type,
    pub(crate) versions: Versions,
    pub(crate) nullable: Versions,
    pub(crate) tag: Option<u32>,
    pub(crate) tagged: Versions,
    pub(crate) default: Option<String>,
    pub(crate) ignorable: bool,
    /// Where it differs from the message's: the client id in the request header never becomes compact.
    pub(crate) flexible: Option<Versions>,
    pub(crate) fields: Vec<Self>,
}

/// A structure that several fields of the message share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) versions: Versions,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) key: Option<i16>,
    pub(crate) versions: Versions,
    pub(crate) flexible: Versions,
    pub(crate) listeners: Vec<String>,
    pub(crate) latest_unstable: bool,
    pub(crate) fields: Vec<Field>,
    pub(crate) shared: Vec<Shared>,
}

impl Schema {
    /// Adds the fields of an extension: a table of the same message that names only what is added.
    ///
    /// A field that is there already says where the fields below it belong; any other is new. What is new must be
    /// tagged with a number that Kafka does not give out, so that whoever does not know it passes over it.
    pub(crate) fn extend(&mut self, extension: &Self) -> Result<(), String> {
        if self.kind != extension.kind || !extension.shared.is_empty() {
            return Err(format!("an extension of {} is no {}", self.name, self.kind));
        }
        add_fields(&mut self.fields, &extension.fields)
    }

    /// The fields of a structure named anywhere in the message.
    #[allow(dead_code, reason = "the generator walks the structures in order instead")]
    pub(crate) fn structure(&self, name: &str) -> Option<&[Field]> {
        fn search<'a>(fields: &'a [Field], name: &str) -> Option<&'a [Field]> {
            fields.iter().find_map(|field| {
                let here = field.kind.structure() == Some(name) && !field.fields.is_empty();
                if here { Some(&*field.fields) } else { search(&field.fields, name) }
            })
        }
        let shared = self.shared.iter().find(|shared| shared.name == name);
        shared.map(|shared| &*shared.fields).or_else(|| {
            let in_shared = self.shared.iter().find_map(|shared| search(&shared.fields, name));
            search(&self.fields, name).or(in_shared)
        })
    }
}

/// Kafka numbers the tags of each structure from 0; the highest in 4.3 is 8.
const FIRST_TAG_OF_EXTENSIONS: u32 = 9000;

fn add_fields(fields: &mut Vec<Field>, added: &[Field]) -> Result<(), String> {
    for new in added {
        let known = fields.iter_mut().find(|field| field.name == new.name);
        match known {
            Some(known) if known.kind == new.kind && !new.fields.is_empty() => {
                add_fields(&mut known.fields, &new.fields)?;
            }
            Some(_) => return Err(format!("{} is there already", new.name)),
            None if new.tag.is_some_and(|tag| tag >= FIRST_TAG_OF_EXTENSIONS)
                && new.tagged == new.versions
                && new.ignorable =>
            {
                fields.push(new.clone());
            }
            None => {
                return Err(format!("{}: write an ignorable field with a tag of ours", new.name));
            }
        }
    }
    Ok(())
}

impl FromStr for Schema {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let mut schema = parse_head(lines.next().ok_or("an empty table")?)?;
        let mut lines =
            lines.map(Line::parse).collect::<Result<Vec<_>, _>>()?.into_iter().peekable();
        while let Some(line) = lines.peek() {
            if let Content::Shared(_) = line.content {
                let Some(Line { content: Content::Shared(mut shared), .. }) = lines.next() else {
                    unreachable!("just peeked at it");
                };
                shared.fields = take_fields(&mut lines, 2)?;
                schema.shared.push(shared);
            } else {
                schema.fields.extend(take_fields(&mut lines, 1)?);
            }
        }
        Ok(schema)
    }
}

fn parse_head(line: &str) -> Result<Schema, String> {
    let mut words = line.split(' ');
    let kind = words.next().ok_or("no kind")?.parse()?;
    let name = words.next().ok_or("no name")?.to_owned();
    let mut schema = Schema {
        kind,
        name,
        key: None,
        versions: Versions::NONE,
        flexible: Versions::NONE,
        listeners: Vec::new(),
        latest_unstable: false,
        fields: Vec::new(),
        shared: Vec::new(),
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("key", key) => schema.key = Some(key.parse().map_err(|error| format!("{error}"))?),
            ("versions", versions) => schema.versions = versions.parse()?,
            ("flexible", versions) => schema.flexible = versions.parse()?,
            ("listeners", names) => {
                schema.listeners = names.split(',').map(str::to_owned).collect()
            }
            ("latest-unstable", _) => schema.latest_unstable = true,
            _ => return Err(format!("unknown attribute: {word}")),
        }
    }
    Ok(schema)
}

struct Line {
    depth: usize,
    content: Content,
}

enum Content {
    Field(Field),
    Shared(Shared),
}

impl Line {
    fn parse(line: &str) -> Result<Self, String> {
        let text = line.trim_start();
        let depth = (line.len() - text.len()) / 2;
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or_else(|| format!("too short: {line}"));
        let (first, second) = (word()?.to_owned(), word()?);
        if first == "struct" {
            let versions = word()?.parse()?;
            let shared = Shared { name: second.to_owned(), versions, fields: Vec::new() };
            return Ok(Self { depth, content: Content::Shared(shared) });
        }
        let mut field = Field {
            name: first,
            kind: second.parse()?,
            versions: word()?.parse()?,
            nullable: Versions::NONE,
            tag: None,
            tagged: Versions::NONE,
            default: None,
            ignorable: false,
            flexible: None,
            fields: Vec::new(),
        };
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("nullable", versions) => field.nullable = versions.parse()?,
                ("tag", tag) => field.tag = Some(tag.parse().map_err(|error| format!("{error}"))?),
                ("tagged", versions) => field.tagged = versions.parse()?,
                ("default", value) => field.default = Some(value.to_owned()),
                ("ignorable", _) => field.ignorable = true,
                ("flexible", versions) => field.flexible = Some(versions.parse()?),
                _ => return Err(format!("unknown attribute: {word}")),
            }
        }
        Ok(Self { depth, content: Content::Field(field) })
    }
}

type Lines = std::iter::Peekable<std::vec::IntoIter<Line>>;

/// The fields at one depth, each with those below it.
fn take_fields(lines: &mut Lines, depth: usize) -> Result<Vec<Field>, String> {
    let mut fields = Vec::new();
    while lines
        .peek()
        .is_some_and(|line| line.depth == depth && matches!(line.content, Content::Field(_)))
    {
        let Some(Line { content: Content::Field(mut field), .. }) = lines.next() else {
            unreachable!("just peeked at it");
        };
        field.fields = take_fields(lines, depth + 1)?;
        fields.push(field);
    }
    if lines.peek().is_some_and(|line| line.depth > depth) {
        return Err(format!("indented too far, below depth {depth}"));
    }
    Ok(fields)
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        if let Some(key) = self.key {
            write!(f, " key={key}")?;
        }
        write!(f, " versions={} flexible={}", self.versions, self.flexible)?;
        if !self.listeners.is_empty() {
            write!(f, " listeners={}", self.listeners.join(","))?;
        }
        if self.latest_unstable {
            write!(f, " latest-unstable")?;
        }
        writeln!(f)?;
        write_fields(f, &self.fields, 1)?;
        for shared in &self.shared {
            writeln!(f, "  struct {} {}", shared.name, shared.versions)?;
            write_fields(f, &shared.fields, 2)?;
        }
        Ok(())
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, fields: &[Field], depth: usize) -> fmt::Result {
    for field in fields {
        write!(f, "{}{} {} {}", "  ".repeat(depth), field.name, field.kind, field.versions)?;
        if !field.nullable.is_empty() {
            write!(f, " nullable={}", field.nullable)?;
        }
        if let Some(default) = &field.default {
            write!(f, " default={default}")?;
        }
        if let Some(tag) = field.tag {
            write!(f, " tag={tag} tagged={}", field.tagged)?;
        }
        if field.ignorable {
            f.write_str(" ignorable")?;
        }
        if let Some(flexible) = field.flexible {
            write!(f, " flexible={flexible}")?;
        }
        writeln!(f)?;
        write_fields(f, &field.fields, depth + 1)?;
    }
    Ok(())
}
