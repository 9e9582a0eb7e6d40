//! How many tests passed, failed and were skipped, and why (pure).

use std::fmt;

/// The outcome of a number of tests.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    /// Names of what failed, each with the reason where there is a short one.
    pub(crate) failed: Vec<String>,
    /// What was left out, each with its reason.
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    pub(crate) fn passed(count: usize) -> Self {
        Self { passed: count, ..Self::default() }
    }

    pub(crate) fn failed(name: impl Into<String>) -> Self {
        Self { failed: vec![name.into()], ..Self::default() }
    }

    pub(crate) fn is_success(&self) -> bool {
        self.failed.is_empty()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }
}

/// The closing line that continuous integration reads: `N passed, N failed, N skipped`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed.len())?;
        if !self.skipped.is_empty() {
            write!(f, ", {} skipped", self.skipped.len())?;
        }
        Ok(())
    }
}

/// What failed, and the first line of why.
pub(crate) fn with_reason(name: &str, reason: &impl fmt::Display) -> String {
    const CHARS_MAX: usize = 300;
    let reason = format!("{reason:#}");
    let line: String = reason.lines().next().unwrap_or_default().chars().take(CHARS_MAX).collect();
    format!("{name}: {line}")
}

/// Reads one of cargo test's closing lines, `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
pub(crate) fn from_cargo(line: &str) -> Option<(usize, usize, usize)> {
    let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        let part = counts.split("; ").find(|part| part.ends_with(name))?;
        part.split(' ').next()?.parse().ok()
    };
    Some((count("passed")?, count("failed")?, count("ignored")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_counts_and_names_skipped_tests_only_if_there_are_any() {
        let mut tally = Tally::passed(3);
        assert_eq!(tally.to_string(), "3 passed, 0 failed");
        tally.add(Tally::failed("a broker starts"));
        tally.skipped.push("kcat (not installed)".to_owned());
        assert_eq!(tally.to_string(), "3 passed, 1 failed, 1 skipped");
        assert!(!tally.is_success());
    }

    #[test]
    fn cargo_s_closing_line_is_understood() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s";
        assert_eq!(from_cargo(line), Some((12, 2, 1)));
        assert_eq!(from_cargo("test a_name ... ok"), None);
    }
}
