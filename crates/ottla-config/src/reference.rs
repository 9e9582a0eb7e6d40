//! The reference page of all properties, written from the tables (pure).

use std::fmt::Write as _;

use crate::property::{Property, Scope, Status, Update};
use crate::settings::{BUILT_IN, BUILT_IN_FOR_ONE, allowed};
use crate::table::{FAMILIES, topic_synonyms};

const INTRODUCTION: &str = "\
<!-- Generated from crates/ottla-config/src/table: edit there, then run
     UPDATE=1 cargo test -p ottla-config --test reference -->

# Configuration reference

Ottla takes Apache Kafka 4.3's properties under Kafka's names, with Kafka's types, defaults and
checks, from a `server.properties` file (`--config`), from environment variables and from the
command line (`--set name=value`). The command line beats the environment, the environment beats
the file, the file beats the default.

Environment variables follow the official `apache/kafka` image: `KAFKA_LOG_RETENTION_HOURS` is
`log.retention.hours`; `__` stands for `_`, `___` for `-`.

What a property does here is in the column *here*:

- **honoured**: it has the effect that the text tells.
- **accepted**: Kafka knows it, so it is checked and shown, but it changes nothing (or not yet).
- **refused**: Ottla would have to pretend, so any value but the default stops the start with an
  error that names the cure.

*changes* tells when a property may change: at the start only (read-only), or while the broker runs,
either for each broker alone (per-broker) or also for all of them (cluster-wide). A change takes
effect at once, is kept in the metadata, and beats the command line:

```
ottla config set topic/orders retention.ms=86400000
ottla config set brokers log.retention.ms=604800000
ottla config describe broker/1
```

Kafka's `kafka-configs.sh` does the same. The properties of topics, groups and client metrics always
change while the broker runs. Besides what is refused at the start, too, Ottla refuses two changes
that Kafka carries out: of `listeners` and of `listener.security.protocol.map`.

A name that neither Kafka nor Ottla knows is one warning with the nearest name; with
`--strict-config` it is an error.
";

/// The whole page, in Markdown.
pub fn reference_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    built_in(&mut page);
    for family in FAMILIES {
        let _infallible = write!(page, "\n## {}\n\n", family.title);
        page.push_str(header(family.scope));
        let mut rows: Vec<&Property> = family.rows.iter().collect();
        rows.sort_by_key(|property| property.name);
        for property in rows {
            page.push_str(&row(family.scope, property));
        }
    }
    page
}

fn built_in(page: &mut String) {
    page.push_str(
        "\n## Without a file\n\n\
         `ottla serve` without `--config` is one node for trying things out:\n\n```properties\n",
    );
    for (name, text) in BUILT_IN {
        let _infallible = writeln!(page, "{name}={text}");
    }
    page.push_str(
        "```\n\nAnd, as long as no other controller is named (several entries in \
         `controller.quorum.voters` or in `controller.quorum.bootstrap.servers`), since one node \
         cannot hold three replicas:\n\n```properties\n",
    );
    for (name, text) in BUILT_IN_FOR_ONE {
        let _infallible = writeln!(page, "{name}={text}");
    }
    page.push_str(
        "```\n\nWith a file, or as one of several, a node has Kafka's defaults: a lone node that is \
         started with a file must name these factors in it, as Kafka's own files do.\n",
    );
}

fn header(scope: Scope) -> &'static str {
    match scope {
        Scope::Broker => {
            "| property | default | allowed | changes | here | what it does |\n\
             | --- | --- | --- | --- | --- | --- |\n"
        }
        Scope::Topic | Scope::Group | Scope::ClientMetrics => {
            "| property | default | allowed | falls back to | here | what it does |\n\
             | --- | --- | --- | --- | --- | --- |\n"
        }
    }
}

fn row(scope: Scope, property: &Property) -> String {
    let default = match property.default {
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
        None if property.required => "required".to_owned(),
        None => "not set".to_owned(),
    };
    let fourth = match scope {
        Scope::Broker => property.update.name().to_owned(),
        Scope::Topic | Scope::Group | Scope::ClientMetrics => fallback(property),
    };
    let cure = match property.status {
        Status::Refused(cure) => format!(" If set: {cure}."),
        Status::Honoured | Status::Accepted => String::new(),
    };
    debug_assert!((property.update == Update::PerResource) == (scope != Scope::Broker));
    format!(
        "| `{}` | {default} | {} | {fourth} | {} | {}{cure} |\n",
        property.name,
        allowed(property).replace('|', "\\|"),
        property.status.name(),
        property.text,
    )
}

fn fallback(property: &Property) -> String {
    let names = topic_synonyms(property.name).iter().map(|(name, _)| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}
