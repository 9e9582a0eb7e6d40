//! Reads the message schemas inside Apache Kafka's jars and keeps their facts: names, types, versions, defaults.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::schema::{Field, Kind, Schema, Shared, Type, Versions};

/// Jar (without its version), the folder inside it, and the folder of our tables that it fills.
const SOURCES: [(&str, &str, &str); 7] = [
    ("kafka-clients", "common/message/*.json", "clients"),
    ("kafka-metadata", "common/metadata/*.json", "metadata"),
    ("kafka-group-coordinator", "common/message/*.json", "group-coordinator"),
    ("kafka-transaction-coordinator", "common/message/*.json", "transaction-coordinator"),
    ("kafka-share-coordinator", "common/message/*.json", "share-coordinator"),
    ("kafka-raft", "common/message/*.json", "raft"),
    ("kafka-storage", "message/ProducerSnapshot.json", "storage"),
];

/// Replaces the tables in `tables` by those in the jars of `jars`.
pub(crate) fn import(jars: &Path, tables: &Path) -> Result<()> {
    for (jar, pattern, folder) in SOURCES {
        let jar = find_jar(jars, jar)?;
        let folder = tables.join(folder);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        for text in read_members(&jar, pattern)? {
            let schema = parse(&text).with_context(|| format!("in {}", jar.display()))?;
            if !schema.versions.is_empty() {
                std::fs::write(folder.join(format!("{}.txt", schema.name)), schema.to_string())?;
            }
        }
    }
    Ok(())
}

fn find_jar(folder: &Path, name: &str) -> Result<PathBuf> {
    let is_it = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(|version| {
            version.starts_with(|first: char| first.is_ascii_digit())
                && version.ends_with(".jar")
                && !version.contains("test")
        })
    };
    let mut paths = std::fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().find(is_it).ok_or_else(|| anyhow!("no {name}-*.jar in {}", folder.display()))
}

/// The texts of the members that match. Runs `unzip`, since nothing else here reads archives.
fn read_members(jar: &Path, pattern: &str) -> Result<Vec<String>> {
    let unzip = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("unzip").args(arguments).output().context("cannot run unzip")?;
        if !output.status.success() {
            bail!("unzip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    };
    let path = jar.to_str().context("a path that is not text")?;
    let names = unzip(&["-Z1", path, pattern])?;
    names.lines().map(|name| unzip(&["-p", path, name])).collect()
}

fn parse(text: &str) -> Result<Schema> {
    let json: Value = serde_json::from_str(&without_comments(text))?;
    let fields = |json: &Value| json.get("fields").map_or_else(|| Ok(Vec::new()), parse_fields);
    let shared = json.get("commonStructs").and_then(Value::as_array).into_iter().flatten();
    Ok(Schema {
        kind: text_of(&json, "type")?.parse::<Kind>().map_err(anyhow::Error::msg)?,
        name: text_of(&json, "name")?.to_owned(),
        key: json.get("apiKey").and_then(Value::as_i64).map(i16::try_from).transpose()?,
        versions: versions_of(&json, "validVersions")?.context("no validVersions")?,
        flexible: versions_of(&json, "flexibleVersions")?.unwrap_or(Versions::NONE),
        listeners: json
            .get("listeners")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|listener| listener.as_str().map(str::to_owned))
            .collect(),
        latest_unstable: flag(&json, "latestVersionUnstable"),
        fields: fields(&json)?,
        shared: shared
            .map(|shared| {
                Ok(Shared {
                    name: text_of(shared, "name")?.to_owned(),
                    versions: versions_of(shared, "versions")?.context("no versions")?,
                    fields: fields(shared)?,
                })
            })
            .collect::<Result<_>>()?,
    })
}

/// The schemas are JSON with `//` comments, which may follow a value but never stand within one.
fn without_comments(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    for line in text.lines() {
        let mut in_text = false;
        let mut previous = ' ';
        let end = line.char_indices().find_map(|(at, letter)| {
            in_text ^= letter == '"' && previous != '\\';
            let comment = !in_text && letter == '/' && previous == '/';
            previous = letter;
            comment.then(|| at - 1)
        });
        json.push_str(end.and_then(|end| line.get(..end)).unwrap_or(line));
        json.push('\n');
    }
    json
}

fn parse_fields(json: &Value) -> Result<Vec<Field>> {
    json.as_array().context("fields are not a list")?.iter().map(parse_field).collect()
}

fn parse_field(json: &Value) -> Result<Field> {
    let name = text_of(json, "name")?;
    let tagged = versions_of(json, "taggedVersions")?.unwrap_or(Versions::NONE);
    let tag = json.get("tag").and_then(Value::as_u64).map(u32::try_from).transpose()?;
    Ok(Field {
        name: name.to_owned(),
        kind: text_of(json, "type")?.parse::<Type>().map_err(anyhow::Error::msg)?,
        // Where only the tagged versions are given, there are no others.
        versions: versions_of(json, "versions")?.unwrap_or(tagged),
        nullable: versions_of(json, "nullableVersions")?.unwrap_or(Versions::NONE),
        tag,
        tagged,
        default: json.get("default").and_then(default_of),
        ignorable: flag(json, "ignorable"),
        flexible: versions_of(json, "flexibleVersions")?,
        fields: json.get("fields").map_or_else(|| Ok(Vec::new()), parse_fields)?,
    })
}

/// A default as the table spells it; what every type defaults to anyway is left out.
///
/// The text `"null"` makes null the default. JSON's own null, which three schemas carry, counts as
/// no default at all: that is how Kafka's generator reads it.
fn default_of(json: &Value) -> Option<String> {
    let text = match json {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => json.to_string(),
    };
    let usual = matches!(&*text, "" | "0" | "false");
    (!usual).then_some(text)
}

fn text_of<'a>(json: &'a Value, key: &str) -> Result<&'a str> {
    json.get(key).and_then(Value::as_str).with_context(|| format!("no {key} in {json}"))
}

fn versions_of(json: &Value, key: &str) -> Result<Option<Versions>> {
    let text = json.get(key).and_then(Value::as_str);
    text.map(|text| text.parse().map_err(anyhow::Error::msg)).transpose()
}

/// Kafka's schemas write flags both as `true` and as `"true"`.
fn flag(json: &Value, key: &str) -> bool {
    json.get(key)
        .is_some_and(|value| value.as_bool().unwrap_or_else(|| value.as_str() == Some("true")))
}
