//! The error codes in an answer of any API, found by its field table (pure).

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ottla_protocol::Decoder;

use super::shape::join;
use crate::protocol::schema::{Field, Schema, Type};

/// Each code that stands in an answer, as `Topics[].ErrorCode=3`.
pub(super) fn error_codes(
    answer: Bytes,
    schema: &Schema,
    version: i16,
) -> Result<BTreeSet<String>> {
    let mut reader =
        Reader { input: Decoder::new(answer), schema, version, codes: BTreeSet::new() };
    reader.structure("", &schema.fields)?;
    reader.input.finish().context("bytes are left behind the answer")?;
    Ok(reader.codes)
}

struct Reader<'a> {
    input: Decoder,
    schema: &'a Schema,
    version: i16,
    codes: BTreeSet<String>,
}

impl Reader<'_> {
    fn structure(&mut self, path: &str, fields: &[Field]) -> Result<()> {
        let version = self.version;
        let here = fields.iter().filter(|field| field.versions.contains(version));
        let (tagged, plain): (Vec<_>, Vec<_>) =
            here.partition(|field| field.tagged.contains(version));
        for field in plain {
            self.field(&join(path, &field.name), field)?;
        }
        if self.schema.flexible.contains(version) {
            self.tagged(path, &tagged)?;
        }
        Ok(())
    }

    fn tagged(&mut self, path: &str, fields: &[&Field]) -> Result<()> {
        for _ in 0..self.input.unsigned_varint()? {
            let tag = self.input.unsigned_varint()?;
            let size = usize::try_from(self.input.unsigned_varint()?)?;
            let end = self.input.remaining().checked_sub(size).context("a field behind the end")?;
            match fields.iter().find(|field| field.tag == Some(tag)) {
                Some(field) => self.field(&join(path, &field.name), field)?,
                None => drop(self.input.take(size)?),
            }
            ensure!(self.input.remaining() == end, "the tagged field {tag} has another size");
        }
        Ok(())
    }

    fn field(&mut self, path: &str, field: &Field) -> Result<()> {
        let is_structure = matches!(field.kind, Type::Struct(_));
        if is_structure && field.nullable.contains(self.version) && self.input.i8()? < 0 {
            return Ok(());
        }
        let compact = field.flexible.unwrap_or(self.schema.flexible).contains(self.version);
        self.value(path, &field.kind, compact)
    }

    fn value(&mut self, path: &str, kind: &Type, compact: bool) -> Result<()> {
        match kind {
            Type::Struct(name) => {
                let schema = self.schema;
                let fields = schema.structure(name).context("a table has its structures")?;
                return self.structure(path, fields);
            }
            Type::Array(element) => {
                for _ in 0..self.length(compact, false)? {
                    self.value(&format!("{path}[]"), element, compact)?;
                }
            }
            Type::String | Type::Bytes | Type::Records => {
                let length = self.length(compact, *kind == Type::String)?;
                self.input.take(length)?;
            }
            Type::Int16 if path.ends_with("ErrorCode") => {
                let code = self.input.i16()?;
                self.codes.insert(format!("{path}={code}"));
            }
            Type::Bool | Type::Int8 => drop(self.input.take(1)?),
            Type::Int16 | Type::Uint16 => drop(self.input.take(2)?),
            Type::Int32 | Type::Uint32 => drop(self.input.take(4)?),
            Type::Int64 | Type::Float64 => drop(self.input.take(8)?),
            Type::Uuid => drop(self.input.take(16)?),
        }
        Ok(())
    }

    /// Null has no length.
    fn length(&mut self, compact: bool, short: bool) -> Result<usize> {
        let length = match (compact, short) {
            (true, _) => i64::from(self.input.unsigned_varint()?) - 1,
            (false, true) => i64::from(self.input.i16()?),
            (false, false) => i64::from(self.input.i32()?),
        };
        match length {
            -1 => Ok(0),
            length if length < -1 => bail!("a length of {length}"),
            length => Ok(usize::try_from(length)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::ErrorCode;
    use ottla_protocol::messages::{MetadataResponse, metadata_response as metadata};
    use ottla_protocol::{Encoder, Message as _};

    use super::*;
    use crate::protocol::tables;

    #[test]
    fn codes_are_found_in_every_version_and_each_once() {
        let topic = metadata::MetadataResponseTopic {
            name: Some("a".into()),
            error_code: ErrorCode::INVALID_TOPIC_EXCEPTION,
            ..Default::default()
        };
        let answer = MetadataResponse { topics: vec![topic.clone(), topic], ..Default::default() };
        let tables = tables().unwrap();
        let schema = tables.iter().find(|schema| schema.name == "MetadataResponse").unwrap();
        for version in MetadataResponse::VERSIONS {
            let mut output = Encoder::new();
            answer.encode(&mut output, version).unwrap();
            let mut expected = BTreeSet::from(["Topics[].ErrorCode=17".to_owned()]);
            if version >= 13 {
                expected.insert("ErrorCode=0".to_owned());
            }
            let found = error_codes(output.into_bytes(), schema, version).unwrap();
            assert_eq!(found, expected, "version {version}");
        }
    }
}
