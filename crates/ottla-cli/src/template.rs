//! The `--format` of `ottla consume`: a line of text with places for the parts of a record. Pure.

use std::io::{self, Write};
use std::str::FromStr;

use ottla_client::ConsumedRecord;

/// A parsed format. Ends with a newline unless it was written with an end of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Key,
    Value,
    Headers,
    Offset,
    Partition,
    Timestamp,
    Topic,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error(
        "%{0} is not a part of a record: %k key, %v value, %h headers, %o offset, %p partition, \
         %T timestamp in milliseconds, %t topic, %% a percent sign"
    )]
    UnknownPart(char),
    #[error("\\{0} is not an escape: \\n, \\t, \\r, \\0, \\\\, and \\c at the end for no newline")]
    UnknownEscape(char),
    #[error("the format ends in the middle of {0:?}")]
    Unfinished(char),
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Pieces::default();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '%' => {
                    pieces.push_part(characters.next().ok_or(TemplateError::Unfinished('%'))?)?
                }
                '\\' => {
                    let escape = characters.next().ok_or(TemplateError::Unfinished('\\'))?;
                    if escape == 'c' && characters.as_str().is_empty() {
                        return Ok(pieces.into_template());
                    }
                    pieces.push_text(unescaped(escape)?);
                }
                _ => pieces.push_text(character),
            }
        }
        if !text.ends_with("\\n") && !text.ends_with("\\0") {
            pieces.push_text('\n');
        }
        Ok(pieces.into_template())
    }
}

fn unescaped(escape: char) -> Result<char, TemplateError> {
    match escape {
        'n' => Ok('\n'),
        't' => Ok('\t'),
        'r' => Ok('\r'),
        '0' => Ok('\0'),
        '\\' => Ok('\\'),
        _ => Err(TemplateError::UnknownEscape(escape)),
    }
}

#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn push_part(&mut self, letter: char) -> Result<(), TemplateError> {
        let piece = match letter {
            'k' => Piece::Key,
            'v' | 's' => Piece::Value,
            'h' => Piece::Headers,
            'o' => Piece::Offset,
            'p' => Piece::Partition,
            'T' => Piece::Timestamp,
            't' => Piece::Topic,
            '%' => {
                self.push_text('%');
                return Ok(());
            }
            _ => return Err(TemplateError::UnknownPart(letter)),
        };
        self.0.push(piece);
        Ok(())
    }

    fn push_text(&mut self, character: char) {
        let mut utf8 = [0; 4];
        let bytes = character.encode_utf8(&mut utf8).as_bytes();
        if let Some(Piece::Text(text)) = self.0.last_mut() {
            text.extend_from_slice(bytes);
        } else {
            self.0.push(Piece::Text(bytes.to_vec()));
        }
    }

    fn into_template(self) -> Template {
        Template { pieces: self.0 }
    }
}

impl Template {
    /// The value and a newline: what `ottla consume` prints when nothing else is asked for.
    #[must_use]
    pub fn value_lines() -> Self {
        Self { pieces: vec![Piece::Value, Piece::Text(b"\n".to_vec())] }
    }

    /// Writes one record; `null` stands for a key or value that is not there.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        topic: &str,
        record: &ConsumedRecord,
        null: &str,
    ) -> io::Result<()> {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => out.write_all(text),
            Piece::Key => out.write_all(record.key.as_deref().unwrap_or(null.as_bytes())),
            Piece::Value => out.write_all(record.value.as_deref().unwrap_or(null.as_bytes())),
            Piece::Headers => write_headers(out, record, null),
            Piece::Offset => write!(out, "{}", record.offset),
            Piece::Partition => write!(out, "{}", record.partition),
            Piece::Timestamp => write!(out, "{}", record.timestamp),
            Piece::Topic => out.write_all(topic.as_bytes()),
        })
    }
}

/// `name=value` pairs with commas between them, in the record's order, nothing escaped.
fn write_headers(out: &mut impl Write, record: &ConsumedRecord, null: &str) -> io::Result<()> {
    for (place, (name, value)) in record.headers.iter().enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        out.write_all(name.as_bytes())?;
        out.write_all(b"=")?;
        out.write_all(value.as_deref().unwrap_or(null.as_bytes()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_json::tests::record;

    fn written(format: &str) -> String {
        let mut out = Vec::new();
        format.parse::<Template>().unwrap().write(&mut out, "orders", &record(), "-").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_part_of_a_record_has_a_letter() {
        assert_eq!(
            written("%t/%p@%o %T %k=%v [%h] 100%%"),
            "orders/3@42 1767225600000 k1=hello [a=1,b=-] 100%\n"
        );
        assert_eq!(written("%s"), "hello\n", "kcat's letter for the value works, too");
    }

    #[test]
    fn a_line_ends_once_whether_or_not_the_newline_is_written() {
        assert_eq!(written("%o"), "42\n");
        assert_eq!(written("%o\\n"), "42\n");
        assert_eq!(written("%o\\0"), "42\0");
        assert_eq!(written("%o\\t\\c"), "42\t");
        assert_eq!(written("ä\\\\%o"), "ä\\42\n");
    }

    #[test]
    fn a_mistake_is_named() {
        let error = |format: &str| format.parse::<Template>().unwrap_err();
        assert_eq!(error("%x"), TemplateError::UnknownPart('x'));
        assert_eq!(error("\\x"), TemplateError::UnknownEscape('x'));
        assert_eq!(error("\\cx"), TemplateError::UnknownEscape('c'));
        assert_eq!(error("100%"), TemplateError::Unfinished('%'));
    }

    #[test]
    fn the_default_is_the_value_on_a_line() {
        assert_eq!(Ok(Template::value_lines()), "%v".parse());
    }
}
