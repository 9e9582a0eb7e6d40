//! Offsets as Kafka's own tool writes and reads them: `topic,partition,offset`, or with the group before, one a line
//! and no heading. Pure.

use std::collections::BTreeMap;

use ottla_base::{Offset, TopicPartition};

/// Of one group; the lines do not name it.
pub(super) fn write<'a>(offsets: impl IntoIterator<Item = (&'a TopicPartition, Offset)>) -> String {
    let line = |(partition, offset): (&TopicPartition, Offset)| {
        format!("{},{},{offset}\n", partition.topic, partition.partition)
    };
    offsets.into_iter().map(line).collect()
}

/// What the lines say of a group; lines of other groups are passed over.
///
/// # Errors
/// The number of the first line that is none of the two forms.
pub(super) fn read(text: &str, group: &str) -> Result<BTreeMap<TopicPartition, Offset>, usize> {
    let mut offsets = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let values = split(line).ok_or(number)?;
        let (owner, rest) = match &*values {
            [owner, rest @ ..] if rest.len() == 3 => (&**owner, rest),
            all => (group, all),
        };
        let [topic, partition, offset] = rest else { return Err(number) };
        let not_negative = |text: &str| text.trim().parse::<i64>().ok().filter(|it| *it >= 0);
        let partition = not_negative(partition).and_then(|it| i32::try_from(it).ok());
        let (partition, offset) = partition.zip(not_negative(offset)).ok_or(number)?;
        if topic.is_empty() {
            return Err(number);
        }
        if owner == group {
            offsets.insert(TopicPartition::new(topic.as_str(), partition), Offset(offset));
        }
    }
    Ok(offsets)
}

/// The values of a line; one that holds a comma or a quote stands in quotes. `None` when a quote is not closed.
fn split(line: &str) -> Option<Vec<String>> {
    let mut values = vec![String::new()];
    let mut characters = line.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        let value = values.last_mut()?;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                value.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => values.push(String::new()),
            other => value.push(other),
        }
    }
    (!quoted).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(lines: &[(&str, i32, i64)]) -> BTreeMap<TopicPartition, Offset> {
        lines.iter().map(|(t, p, o)| (TopicPartition::new(*t, *p), Offset(*o))).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let plan = offsets(&[("a", 0, 7), ("b", 12, 0)]);
        let text = write(plan.iter().map(|(partition, offset)| (partition, *offset)));
        assert_eq!(text, "a,0,7\nb,12,0\n");
        assert_eq!(read(&text, "g"), Ok(plan));
    }

    #[test]
    fn of_several_groups_only_the_one_asked_for_is_taken() {
        let text = "g,a,0,7\r\nother,a,0,8\n\n\"g\",a,1,9\n\"with, \"\"comma\"\"\",a,2,1\n";
        assert_eq!(read(text, "g"), Ok(offsets(&[("a", 0, 7), ("a", 1, 9)])));
        assert_eq!(read(text, "with, \"comma\""), Ok(offsets(&[("a", 2, 1)])));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let wrong = ["a,0", "a,x,1", "a,0,-1", ",0,1", "g,a,0,1,2", "\"a,0,1", "a,-1,1", "a;0;1"];
        for line in wrong {
            assert_eq!(read(&format!("a,0,1\n{line}\n"), "g"), Err(2), "{line:?}");
        }
    }
}
