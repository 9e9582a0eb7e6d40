//! What one configuration property is: name, type, default, allowed values, when it may change
//! and what it means here (pure).
//!
//! Rows are built with `const` methods, so that the tables read like a list and cost nothing at
//! start. Defaults are kept in Kafka's own spelling: the text that DescribeConfigs sends.

use crate::check::Check;

/// One property of a broker, a topic, a group or a client-metrics subscription.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    pub name: &'static str,
    pub kind: Kind,
    /// `None` means null in Kafka: not set, and no value to show.
    pub default: Option<&'static str>,
    /// Kafka does not start without it.
    pub required: bool,
    pub check: Check,
    pub importance: Importance,
    pub update: Update,
    pub status: Status,
    /// Kafka hides it from listings unless somebody sets it.
    pub internal: bool,
    /// One sentence of our own: reference page, `--help` and DescribeConfigs show it.
    pub text: &'static str,
}

/// Kafka's type of a property. The number is what DescribeConfigs calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
    Class = 8,
    Password = 9,
}

impl Kind {
    /// The type code in a DescribeConfigs answer.
    pub const fn code(self) -> i8 {
        self as i8
    }

    /// Kafka's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Importance {
    High,
    Medium,
    Low,
}

impl Importance {
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// When a property may change (Kafka's "dynamic update mode").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    ReadOnly,
    PerBroker,
    ClusterWide,
    /// Belongs to a topic, a group or a subscription, and changes with it.
    PerResource,
}

impl Update {
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::PerBroker => "per-broker",
            Self::ClusterWide => "cluster-wide",
            Self::PerResource => "per-resource",
        }
    }
}

/// What setting the property does in Ottla.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has the effect that its text tells.
    Honoured,
    /// Known, checked and shown; it changes nothing here (or not yet).
    Accepted,
    /// The broker would have to pretend, so any value but the default stops it; says what to do.
    Refused(&'static str),
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Accepted => "accepted",
            Self::Refused(_) => "refused",
        }
    }
}

/// Whose property it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Broker,
    Topic,
    Group,
    ClientMetrics,
}

macro_rules! rows_of {
    ($($function:ident = $kind:ident),+) => {
        $(pub(crate) const fn $function(name: &'static str) -> Property {
            Property::new(name, Kind::$kind)
        })+
    };
}

rows_of!(
    boolean = Boolean,
    string = String,
    int = Int,
    short = Short,
    long = Long,
    double = Double,
    list = List,
    class = Class,
    password = Password
);

impl Property {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            default: None,
            required: false,
            check: Check::Any,
            importance: Importance::Medium,
            update: Update::ReadOnly,
            status: Status::Accepted,
            internal: false,
            text: "",
        }
    }

    /// Null in a DescribeConfigs answer, and never in a log line.
    pub const fn is_sensitive(&self) -> bool {
        matches!(self.kind, Kind::Password)
    }

    pub(crate) const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    pub(crate) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(crate) const fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    pub(crate) const fn high(mut self) -> Self {
        self.importance = Importance::High;
        self
    }

    pub(crate) const fn low(mut self) -> Self {
        self.importance = Importance::Low;
        self
    }

    pub(crate) const fn per_broker(mut self) -> Self {
        self.update = Update::PerBroker;
        self
    }

    pub(crate) const fn cluster_wide(mut self) -> Self {
        self.update = Update::ClusterWide;
        self
    }

    pub(crate) const fn per_resource(mut self) -> Self {
        self.update = Update::PerResource;
        self
    }

    pub(crate) const fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    pub(crate) const fn at_least(self, minimum: i64) -> Self {
        self.check(Check::AtLeast(minimum))
    }

    pub(crate) const fn between(self, minimum: i64, maximum: i64) -> Self {
        self.check(Check::Between(minimum, maximum))
    }

    pub(crate) const fn one_of(self, values: &'static [&'static str]) -> Self {
        self.check(Check::OneOf(values))
    }

    pub(crate) const fn honoured(mut self, text: &'static str) -> Self {
        self.status = Status::Honoured;
        self.text = text;
        self
    }

    pub(crate) const fn accepted(mut self, text: &'static str) -> Self {
        self.status = Status::Accepted;
        self.text = text;
        self
    }

    pub(crate) const fn refused(mut self, text: &'static str, cure: &'static str) -> Self {
        self.status = Status::Refused(cure);
        self.text = text;
        self
    }
}
