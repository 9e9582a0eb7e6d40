//! Java's `.properties` syntax, with the line that each pair began on (pure).
//!
//! Own reader: see `docs/decisions/004-configuration.md`. What it follows: `=`, `:` or a blank ends the key; a backslash escapes the next
//! character, continues the line, or begins `\uXXXX`; `#` and `!` begin a comment; a later pair
//! of the same key replaces the earlier one.

/// One pair as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: String,
    /// Counted from 1: where the pair begins, when it goes over several lines.
    pub line: usize,
}

/// A `\u` that four hexadecimal digits do not follow: Java refuses the whole file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: \\u must be followed by four hexadecimal digits")]
pub struct MalformedEscape {
    pub line: usize,
}

/// Reads a whole file. Repeated keys stay, in order: the last one counts.
///
/// # Errors
/// [`MalformedEscape`] for the first bad one, and nothing of the file.
pub fn parse(text: &str) -> Result<Vec<Entry>, MalformedEscape> {
    let mut entries = Vec::new();
    let mut lines = natural_lines(text).zip(1..);
    while let Some((first, line)) = lines.next() {
        let first = first.trim_start_matches(is_blank);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_with_continuation(&logical) {
            logical.pop();
            // While there is nothing to continue, what follows may still be a comment.
            let next = if logical.is_empty() { None } else { lines.next() };
            let Some((next, _)) = next else { break };
            logical.push_str(next.trim_start_matches(is_blank));
        }
        if logical.is_empty() {
            continue;
        }
        let (key, value) = split_pair(&logical);
        entries.push(Entry { key: unescape(key, line)?, value: unescape(value, line)?, line });
    }
    Ok(entries)
}

/// Reads the value of a pair that is given apart from its key, such as an environment variable
/// that the official image appends to the file.
pub(crate) fn parse_value(text: &str) -> Result<String, MalformedEscape> {
    let line = format!("value={text}");
    Ok(parse(&line)?.into_iter().next().map(|entry| entry.value).unwrap_or_default())
}

/// `\n`, `\r` and `\r\n` all end a line.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

fn ends_with_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

/// Splits at the first separator that is not escaped; blanks around it belong to neither side.
fn split_pair(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if is_blank(c) || c == '=' || c == ':' {
            let (key, rest) = line.split_at(at);
            let rest = rest.trim_start_matches(is_blank);
            let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
            return (key, value.trim_start_matches(is_blank));
        }
    }
    (line, "")
}

fn unescape(text: &str, line: usize) -> Result<String, MalformedEscape> {
    let mut plain = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                None => break,
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let unit = (digits.len() == 4)
                        .then(|| u16::from_str_radix(&digits, 16).ok())
                        .flatten()
                        .filter(|_| !digits.starts_with('+'))
                        .ok_or(MalformedEscape { line })?;
                    plain.push(unit);
                    continue;
                }
                Some(other) => other,
            },
            other => other,
        };
        plain.extend(c.encode_utf16(&mut [0; 2]).iter().copied());
    }
    // Escapes are UTF-16 units: two of them may make one character.
    Ok(String::from_utf16_lossy(&plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, usize)> {
        parse(text).unwrap().into_iter().map(|e| (e.key, e.value, e.line)).collect()
    }

    fn pair(key: &str, value: &str, line: usize) -> (String, String, usize) {
        (key.to_owned(), value.to_owned(), line)
    }

    #[test]
    fn each_separator_ends_the_key_and_blanks_around_it_do_not_count() {
        assert_eq!(
            pairs("a=1\nb : 2\n  c   3\nd\ne = \n"),
            [
                pair("a", "1", 1),
                pair("b", "2", 2),
                pair("c", "3", 3),
                pair("d", "", 4),
                pair("e", "", 5)
            ]
        );
    }

    #[test]
    fn comments_and_empty_lines_count_as_lines_only() {
        assert_eq!(pairs("# a=1\r\n\r\n  ! b=2\rc=3"), [pair("c", "3", 4)]);
    }

    #[test]
    fn a_backslash_at_the_end_joins_lines_and_an_escaped_one_does_not() {
        assert_eq!(
            pairs("a=1,\\\n   2\nb=x\\\\\nc=3"),
            [pair("a", "1,2", 1), pair("b", "x\\", 3), pair("c", "3", 4)]
        );
    }

    #[test]
    fn escapes_are_resolved_in_keys_and_values() {
        assert_eq!(pairs(r"a\=b\:c\ d=\u00e9\ud83d\ude00\tx\q"), [pair("a=b:c d", "é😀\txq", 1)]);
    }

    #[test]
    fn values_keep_blanks_at_their_end_and_separators_inside() {
        assert_eq!(
            pairs("listeners=PLAINTEXT://:9092  "),
            [pair("listeners", "PLAINTEXT://:9092  ", 1)]
        );
    }

    #[test]
    fn a_bad_unicode_escape_names_its_line() {
        assert_eq!(parse("a=1\nb=\\u12"), Err(MalformedEscape { line: 2 }));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[\\\\u0-9a-f=:# \t\r\n]{0,60}") {
            drop(parse(&text));
        }
    }
}
